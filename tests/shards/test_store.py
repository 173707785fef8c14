import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import filesystem, ledger, manifest
from shards.errors import UserError
from shards.filesystem import StorageError
from shards.ledger import Entry, Ledger
from shards.manifest import Generation, Manifest, ManifestError, Shard
from shards.segments import Segment, SegmentStore, SegmentStoreError, VideoText


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


@pytest.mark.parametrize("video_id", ["gOldVidA_01", "my holiday (1)", "a/b\\c", "日本" * 60, ".hidden", "x" * 400])
def test_segments_come_back(tmp_path, video_id):
    store = SegmentStore(str(tmp_path))
    segments = [make_segment(i, tokens=i) for i in range(5)]
    text = VideoText(video_id, [11, 12], [13], [14], '{"k": 1}')
    store.commit(text, segments, "digest", {"words": 3})
    held = store.find(video_id)
    assert (held.text, held.config_digest, held.scores) == (text, "digest", {"words": 3})
    assert all(same(a, b) for a, b in zip(store.read(held, 1, 4), segments[1:4], strict=True))
    store.remove(video_id)
    assert store.find(video_id) is None


def test_a_damaged_store_file_is_named(tmp_path):
    store = SegmentStore(str(tmp_path))
    store.commit(VideoText("v"), [make_segment(i) for i in range(3)], "d", {})
    good = filesystem.read_bytes(store.path("v"))
    for position in (12, len(good) - 60, len(good) - 5):
        bad = bytearray(good)
        bad[position] ^= 1
        filesystem.write_bytes(store.path("v"), bytes(bad))
        with pytest.raises(SegmentStoreError, match=r"v\.segments"):
            store.read(store.get("v"), 0, 3)
    filesystem.write_bytes(store.path("v"), good[:10])
    with pytest.raises(SegmentStoreError):
        store.get("v")


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def write_half():
        with filesystem.create(str(tmp_path / "deep" / "file")) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list((tmp_path / "deep").iterdir()) == []


def test_unreadable_and_unwritable_paths_are_named(tmp_path):
    with pytest.raises(StorageError, match=r"cannot access '.*absent'"):
        filesystem.read_bytes(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file exists|not a directory"):
        filesystem.write_bytes(str(tmp_path / "file" / "x"), b"")


def test_one_lock_one_job(tmp_path):
    lock = str(tmp_path / ".lock")
    with (
        filesystem.exclusive(lock),
        pytest.raises(StorageError, match="another job is writing"),
        filesystem.exclusive(lock),
    ):
        pytest.fail("two jobs hold the lock")
    with filesystem.exclusive(lock):
        assert filesystem.exists(lock)


def test_ledger_keeps_the_newest_and_skips_torn_lines(tmp_path):
    first, second = Ledger(str(tmp_path), "a"), Ledger(str(tmp_path), "b")
    first.append(Entry("v", "network", "failed-retryable", at=1.0))
    second.append(Entry("v", "extracted", "done", segments=4, at=2.0))
    path = tmp_path / "ledger" / "a.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "torn", "outc')
    first.append(Entry("w", "private", "failed-final", detail='"quoted" ünïcode', at=3.0))
    entries = first.entries()
    assert entries["v"].segments == 4
    assert entries["w"].detail == '"quoted" ünïcode'
    assert set(entries) == {"v", "w"}


@given(st.binary(max_size=300))
def test_any_bytes_in_a_ledger(data):
    assert all(isinstance(e, Entry) for e in ledger.parse_lines(data))


def example_manifest():
    shards = [Shard("train-g0000-00000of00001.tfrecord", 3, 1000, "ab" * 32)]
    return Manifest(16, "config", "tokenizer", [Generation(0, "train", 2, 48, shards)])


def test_manifest_round_trip(tmp_path):
    held = example_manifest()
    manifest.save(str(tmp_path), held)
    assert manifest.load(str(tmp_path)) == held
    assert held.shards("train") == held.shards()
    assert held.shards("val") == []


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("version"),
        lambda m: m.update(format="other"),
        lambda m: m.update(extra=1),
        lambda m: m.pop("generations"),
        lambda m: m["generations"][0]["shards"][0].update(name="../../etc/passwd"),
        lambda m: m["generations"][0]["shards"][0].update(bytes="many"),
        lambda m: m["generations"][0].pop("split"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, change):
    values = json.loads(example_manifest().to_json())
    change(values)
    (tmp_path / manifest.NAME).write_text(json.dumps(values))
    with pytest.raises(ManifestError, match=r"manifest\.json: "):
        manifest.load(str(tmp_path))


def test_no_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        manifest.load(str(tmp_path))
