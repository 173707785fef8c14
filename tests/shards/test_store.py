import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.dataset import ledger, manifest
from shards.dataset.ledger import Entry, Ledger
from shards.dataset.manifest import Generation, Manifest, ManifestError, Shard
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.storage.filesystem import StorageError


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
    with pytest.raises(UserError, match=r"contains no manifest\.json"):
        manifest.load(str(tmp_path))
