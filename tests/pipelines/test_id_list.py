"""The stream of a long list gives what the list as a whole gives, and a wave job cuts it so."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.ids import read_ids
from ingest.raw import RawError
from pipelines import id_list
from shards.tally import id_digests

NONE = np.zeros(0, np.uint64)
IDS = st.sampled_from([f"video_{number:05d}" for number in range(12)])
ENTRIES = st.one_of(
    IDS,
    IDS.map(lambda name: f"https://youtu.be/{name}"),
    IDS.map(lambda name: f"https://www.youtube.com/watch?v={name}&t=3"),
    st.sampled_from(["", "  ", "# a remark", "short", "é not an id", "a\u2028b", "video_00003\x1c"]),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lists")


def outcome(work):
    try:
        return list(work())
    except RawError as error:
        return str(error)


@given(
    entries=st.lists(ENTRIES, max_size=30),
    column=st.sampled_from([None, "video_id", "video_id,title", "title,video_id", "title,year"]),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    limit=st.one_of(st.none(), st.integers(1, 14)),
    ended=st.sets(IDS, max_size=4),
)
def test_a_streamed_list_is_the_whole_list(folder, entries, column, ending, encoding, limit, ended):
    if column:
        place = column.split(",").index("video_id") if "video_id" in column else 0
        rows = [",".join(["x"] * place + [entry]) for entry in entries]
        entries = [column, *rows]
    path = str(folder / "ids")
    Path(path).write_bytes(ending.join(entries).encode(encoding, errors="replace"))

    def whole():
        listed = read_ids(path)
        return [name for name in [*listed.ids, *listed.bad][:limit] if name not in ended]

    streamed = outcome(lambda: id_list.names_left(path, limit, id_digests(sorted(ended))))
    assert streamed == outcome(whole)


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RawError, match="cannot be read"):
        id_list.names_left(str(tmp_path / "absent"), None, NONE)


def test_more_names_than_are_held_at_once_stay_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(id_list, "_NAMES_AT_ONCE", 7)
    names = [f"id{number:09d}" for number in range(100)]
    path = tmp_path / "ids"
    path.write_text("\n".join([*names[:60], "bad", *names[50:], *names[:3], "worse", "bad"]))
    assert list(id_list.names_left(str(path), None, id_digests(names[10:20]))) == [
        *names[:10],
        *names[20:],
        "bad",
        "worse",
    ]
