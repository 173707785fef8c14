"""Other thresholds over a finished data set: what they would change, and the set that they make."""

import json

import pytest

from ingest.filters import FilterConfig
from pipelines import refilter
from pipelines.maintenance.thresholds import changed
from pipelines.preprocessing.replay_rules import Replay
from shards.dataset.ledger import Entry, Ledger
from shards.outcomes import Outcome
from shards.storage.errors import UsageError
from tests.pipelines.test_preprocess import bytes_of

SAME = (".tfrecord", ".index", ".stats.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory, run, corpus, quick):
    out = tmp_path_factory.mktemp("data") / "out"
    ran = run.preprocess("--videos", corpus / "train", "--out", out, *quick, "--keep-segments")
    assert ran.status == 0, ran.err
    return out


@pytest.fixture(scope="module")
def middle(data):
    """A similarity that half of the videos have more of."""
    scores = sorted(entry.scores["similarity"] for entry in Ledger(str(data)).entries().values())
    return round((scores[2] + scores[3]) / 2, 4)


def test_the_new_set_is_the_one_a_new_run_makes(data, middle, tmp_path, run, corpus, quick):
    one = "--direct_running_mode=in_memory"
    flags = ["--set", f"max_similarity={middle}", "--out", tmp_path / "refiltered", "--shard-bytes", "200000", one]
    ran = run("pipelines.refilter", data, *flags)
    assert ran.status == 0, ran.err
    assert "too-alike" in ran.err
    again = ["--videos", corpus / "train", "--out", tmp_path / "again", *quick, "--max-similarity", middle]
    assert run.preprocess(*again).status == 0
    ours, theirs = bytes_of(tmp_path / "refiltered", *SAME), bytes_of(tmp_path / "again", *SAME)
    assert ours.keys() == theirs.keys()
    assert any(name.endswith(".tfrecord") for name in ours)
    assert all(ours[name] == theirs[name] for name in ours)
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("refiltered", "again")]
    assert configs[0] == configs[1]
    outcomes = [Ledger(str(tmp_path / name)).entries() for name in ("refiltered", "again")]
    assert {k: e.outcome for k, e in outcomes[0].items()} == {k: e.outcome for k, e in outcomes[1].items()}
    assert run("shards", "verify", tmp_path / "refiltered").status == 0


def test_a_report_alone_changes_nothing(data, run):
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    ran = run("pipelines.refilter", data, "--set", "min_words_per_30s=1000", "max_seconds=None")
    assert ran.status == 0, ran.err
    assert "sparse-speech" in ran.err
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


@pytest.mark.parametrize(
    ("flags", "status", "sentence"),
    [
        (["--set", "max_similarity"], 2, "must be NAME=VALUE with one of the names max_seconds"),
        (["--set", "colour=1"], 2, "must be NAME=VALUE"),
        (["--set", "max_similarity=high"], 2, "must have a number or None"),
        (["--set", "max_seconds=1", "--out", "{data}"], 1, "already contains data"),
        (["--set", "max_seconds=1", "--out", "{tmp}/none"], 1, "keep no video"),
    ],
)
def test_bad_usage_is_one_sentence(data, tmp_path, capfd, flags, status, sentence):
    from shards.command_line import run_command

    arguments = [str(data), *[flag.format(data=data, tmp=tmp_path) for flag in flags]]
    assert run_command(lambda: refilter.main(arguments)) == status
    assert sentence in " ".join(capfd.readouterr().err.split())


def test_without_kept_segments_it_says_so(data, middle, tmp_path, run):
    copied = tmp_path / "copied"
    (copied / "ledger").mkdir(parents=True)
    for path in [*data.glob("*.json"), *(data / "ledger").iterdir()]:
        (copied / path.relative_to(data)).write_bytes(path.read_bytes())
    ran = run("pipelines.refilter", copied, "--set", f"max_similarity={middle}", "--out", tmp_path / "new")
    assert ran.status == 1
    assert "are not in the store; extract the video again" in ran.err


def test_rules_are_replayed_in_the_order_of_the_job():
    scores = {"duration": 100.0, "words": 40, "words_per_30s": 30, "language": "en", "language_probability": 0.7}
    kept = Entry("kept", "extracted", "done", scores=scores | {"similarity": 0.95})
    sparse = Entry("sparse", "sparse-speech", "rejected", scores=scores | {"language_probability": 0.99})
    broken = Entry("broken", "media-unreadable", "rejected", scores=scores)
    lax = changed(FilterConfig(), ["min_words_per_30s=20", "min_language_probability=0.6", "max_similarity=0.9"])
    replay = Replay("data", (), "en", lax, frozenset())
    assert replay.decide(kept) == ("dropped", Outcome.TOO_ALIKE)
    assert replay.decide(sparse) == ("regained", None)
    assert replay.decide(broken) == ("as before", None)
    replay = Replay("data", (), "en", FilterConfig(), frozenset(["sparse"]))
    assert replay.decide(kept) == ("dropped", Outcome.SPARSE_SPEECH)
    assert replay.decide(sparse) == ("withdrawn", None)


def test_other_categories_are_a_list():
    assert changed(FilterConfig(), ["excluded_categories=Gaming,Music"]).excluded_categories == ("Gaming", "Music")
    with pytest.raises(UsageError):
        changed(FilterConfig(), ["max_seconds=[1]"])
