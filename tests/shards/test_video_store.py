import dataclasses
import struct
import zlib
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.dataset.video_store import VideoStore, VideoStoreError, VideoTable
from shards.records.segments import Segment, VideoText
from shards.storage import filesystem


def make_segment(i=0, tokens=3):
    return Segment(
        5.0 * i,
        5.0 * i + 5,
        1,
        b"\xff\xd8jpeg%d" % i,
        320,
        180,
        b"\xff\xd8mel%d" % i,
        30.5,
        np.arange(10, 10 + tokens, dtype=np.int32),
        np.arange(tokens, dtype=np.float32),
        np.arange(tokens, dtype=np.float32) + 1,
    )


def same(a, b):
    return all(
        np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y
        for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def table(video_id, outcome="extracted"):
    text = VideoText(video_id, [11, 12], [13], [14], '{"k": 1}')
    return VideoTable(text, "digest", outcome, "done", "detail", {"words": 3}, cpu_seconds=1.5, at=2.0)


@pytest.mark.parametrize("video_id", ["gOldVidA_01", "my holiday (1)", "a/b\\c", "日本" * 60, ".hidden", "x" * 400])
def test_segments_come_back(tmp_path, video_id):
    store = VideoStore(str(tmp_path))
    segments = [make_segment(i, tokens=i) for i in range(5)]
    written = store.commit(table(video_id), segments)
    held = store.get(video_id)
    assert held == written == dataclasses.replace(table(video_id), spans=written.spans)
    assert all(same(a, b) for a, b in zip(store.read(held, 1, 4), segments[1:4], strict=True))
    assert held.segment_bytes == sum(length for _, length, _ in held.spans)
    assert [store.at(path) for path in store.paths()] == [held]
    store.remove(video_id)
    assert store.find(video_id) is None
    assert list(store.paths()) == []


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_ids_have_two_places_in_the_store(one, other):
    store = VideoStore("/data")
    paths = [store.path(video) for video in (one, other)]
    assert (paths[0] == paths[1]) == (one == other)
    for path in paths:
        folder, _, name = path.removeprefix("/data/videos/").partition("/")
        assert len(folder) == 2
        assert "/" not in name
        assert len(name.encode()) <= 255
        assert name not in (".", "..")


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()), st.text())
def test_any_table_comes_back(scores, detail):
    held = dataclasses.replace(table("v"), scores=scores, detail=detail, spans=[(8, 100, 2**32 - 1)])
    assert VideoTable.unpack(held.pack()) == held


def test_a_video_without_segments_has_an_object_too(tmp_path):
    store = VideoStore(str(tmp_path))
    written = store.commit(table("v", "no-captions"), [])
    assert (written.spans, store.get("v")) == ([], written)


def test_a_table_longer_than_one_request_is_read(tmp_path):
    store = VideoStore(str(tmp_path))
    long = dataclasses.replace(table("v"), detail=np.random.default_rng(0).bytes(60_000).hex())
    assert len(long.pack()) > 1 << 16
    store.commit(long, [make_segment()])
    assert store.get("v").detail == long.detail


def test_damage_is_named(tmp_path):
    store = VideoStore(str(tmp_path))
    store.commit(table("v"), [make_segment(i) for i in range(3)])
    good = filesystem.read_bytes(store.path("v"))
    for position in (12, len(good) - 60, len(good) - 14, len(good) - 5):
        bad = bytearray(good)
        bad[position] ^= 1
        filesystem.write_bytes(store.path("v"), bytes(bad))
        with pytest.raises(VideoStoreError, match=r"v\.video"):
            store.read(store.get("v"), 0, 3)
    for size in (0, 10, len(good) - 1):
        filesystem.write_bytes(store.path("v"), good[:size])
        with pytest.raises(VideoStoreError, match=r"v\.video"):
            store.find("v")
    store.remove("v")
    with pytest.raises(VideoStoreError, match="'v' are not in the store"):
        store.get("v")
    with pytest.raises(VideoStoreError, match=r"v\.video"):
        store.at(store.path("v"))


def test_an_object_that_lost_its_segments_is_named(tmp_path):
    store = VideoStore(str(tmp_path))
    held = store.commit(table("v"), [make_segment(i) for i in range(3)])
    filesystem.write_bytes(store.path("v"), b"short")
    with pytest.raises(VideoStoreError, match=r"v\.video"):
        store.read(held, 0, 3)


def test_who_comes_second_gets_the_object_that_is_there(tmp_path):
    store = VideoStore(str(tmp_path))
    first = store.commit(table("v"), [make_segment()])
    assert store.commit(table("v", "timed-out"), []) == first
    assert store.get("v") == first
    replaced = store.commit(table("v", "timed-out"), [], replace=True)
    assert store.get("v") == replaced != first
    assert len(list(store.paths())) == 1


@pytest.mark.parametrize("packed", [b"\x01" * 20, zlib.compress(bytes(80 << 20)), zlib.compress(b"\x93abc")])
def test_a_valid_sum_does_not_make_a_valid_table(tmp_path, packed):
    """A table that unpacks to 80 MB, one that is not compressed, and one of another form, with the right sums."""
    store = VideoStore(str(tmp_path))
    store.commit(table("abc"), [make_segment()])
    path = Path(store.path("abc"))
    trailer = struct.pack("<QI8s", len(packed), google_crc32c.value(packed), b"RSVVID1\n")
    path.write_bytes(path.read_bytes() + packed + trailer)
    with pytest.raises(VideoStoreError, match="not a valid object of the per-video store"):
        store.find("abc")
