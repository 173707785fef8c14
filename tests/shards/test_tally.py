"""A tally says of any ledger what its lines say, whether parts of it are closed or not."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import filesystem, tally
from shards.inspection.stats import outcomes
from shards.ledger import Entry, Ledger

ENDINGS = [("extracted", "done"), ("no-words", "rejected"), ("server", "failed-retryable")]
lines = st.lists(
    st.tuples(
        st.sampled_from([f"v{i}" for i in range(8)]), st.sampled_from(ENDINGS), st.sampled_from([None, "a", "b"])
    ),
    max_size=40,
)


def entry(name, ending, at):
    return Entry(name, *ending, scores={"language": "de"} if name < "v4" else {}, at=float(at))


def told(folder):
    return {(r.kind, r.outcome, r.language): n for r, n in tally.of_data(folder).counts().items()}


def expected(folder):
    found = Ledger(folder).entries().values()
    return dict(
        Counter(
            (e.kind, e.outcome, str(e.scores.get("language", "unknown")) if e.kind == "done" else "") for e in found
        )
    )


@settings(max_examples=40, deadline=None)
@given(lines, st.sampled_from([None, "a", "b"]))
def test_a_tally_counts_the_newest_lines(tmp_path_factory, written, closed):
    folder = str(tmp_path_factory.mktemp("data"))
    for at, (name, ending, part) in enumerate(written):
        Ledger(folder, "w", part).append(entry(name, ending, at))
    before = expected(folder)
    assert told(folder) == before
    if closed:
        tally.close(folder, closed)
        assert told(folder) == before
        assert expected(folder) == before
        assert filesystem.list_files(Ledger(folder, part=closed).folder) == []
    done = {name for name, e in Ledger(folder).entries().items() if e.kind == "done"}
    assert set(tally.of_data(folder).ended({"done"}).tolist()) == set(tally.id_digests(sorted(done)).tolist())
    assert sum(sum(ended.values()) for ended in outcomes(folder)[0].values()) == sum(before.values())


def test_samples_are_of_items_that_ended_so(tmp_path):
    for at in range(50):
        Ledger(str(tmp_path), "w", "a").append(entry(f"v{at}", ENDINGS[2], at))
    tally.close(str(tmp_path), "a")
    for at in range(50, 99):
        Ledger(str(tmp_path), "w").append(entry(f"v{at - 50}", ENDINGS[0], at))
    sampled = {reason.outcome: names for reason, names in tally.of_data(str(tmp_path)).sampled().items()}
    assert sampled["server"] in ([], ["v49"])
    assert len(sampled["extracted"]) == 3


def test_a_part_is_closed_once_however_often_it_is_tried(tmp_path):
    part = Ledger(str(tmp_path), "w", "g0000")
    for at in range(5):
        part.append(entry(f"v{at}", ENDINGS[0], at))
    torn = tmp_path / "ledger" / "g0000" / "w.jsonl"
    torn.write_bytes(torn.read_bytes() + b'{"id": "v9", "outco')
    opened = torn.read_bytes()
    tally.close(str(tmp_path), "g0000")
    assert len(part.entries()) == 5, "whoever goes on with a closed part sees its lines"
    once = (tmp_path / "ledger" / "g0000.jsonl").read_bytes()
    assert len(once.splitlines()) == 5
    # As if it had been interrupted before the open files went.
    torn.parent.mkdir()
    torn.write_bytes(opened)
    tally.close(str(tmp_path), "g0000")
    assert (tmp_path / "ledger" / "g0000.jsonl").read_bytes() == once
    assert not torn.exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "lines"])
def test_a_damaged_tally_is_made_up_from_the_lines(tmp_path, damage):
    for at in range(30):
        Ledger(str(tmp_path), "w", "g0000").append(entry(f"v{at}", random.Random(at).choice(ENDINGS), at))
    tally.close(str(tmp_path), "g0000")
    before, path = told(str(tmp_path)), tmp_path / "ledger" / "g0000.tally"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        closed = tmp_path / "ledger" / "g0000.jsonl"
        closed.write_bytes(closed.read_bytes() + json.dumps({"id": "new", "outcome": "server", "kind": "x"}).encode())
        before[("x", "server", "")] = 1
    assert told(str(tmp_path)) == before
