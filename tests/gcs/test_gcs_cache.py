"""Shards in a bucket are read once: the second epoch comes from the disk of the host, within its bound."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from shards.reading import cache, source
from shards.reading.cache import CacheOptions, ShardCache
from shards.reading.source import Source
from shards.storage import object_store
from shards.storage.errors import UsageError
from tests.reader_data import write_data

COUNTS = [5, 3, 6]


@pytest.fixture
def remote(bucket, tmp_path):
    """A data set in the bucket, and the same on the disk."""
    local = write_data(tmp_path / "local", COUNTS)
    for path in sorted(Path(local).iterdir()):
        with object_store.create(f"{bucket}/data/{path.name}") as file:
            file.write(path.read_bytes())
    return f"{bucket}/data", local


@pytest.fixture
def requests(monkeypatch):
    """What is read from the bucket."""
    seen, real = [], object_store.read_bytes

    def read(path, start, length):
        seen.append((path, start, length))
        return real(path, start, length)

    monkeypatch.setattr(object_store, "read_bytes", read)
    return seen


def read_all(held):
    return [held.read(shard, record) for shard, count in enumerate(COUNTS) for record in range(count)]


def size_of(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*.piece"))


def test_the_second_epoch_reads_nothing_from_the_bucket(remote, tmp_path, requests, monkeypatch):
    monkeypatch.setattr(source, "_BLOCK_BYTES", 4096)
    there, here = remote
    expected = read_all(Source(here))
    options = CacheOptions(str(tmp_path / "cache"), 1.0)
    held = Source(there, cache=options)
    assert read_all(held) == expected
    assert requests
    requests.clear()
    assert read_all(held) == expected
    again = Source(there, cache=options)
    requests.clear()
    monkeypatch.setattr(object_store, "size", None)
    assert read_all(again) == expected, "another process of the host finds the pieces, too"
    assert requests == []


def test_the_bound_holds_and_what_was_read_last_stays(remote, tmp_path, requests, monkeypatch):
    monkeypatch.setattr(source, "_BLOCK_BYTES", 4096)
    there, here = remote
    expected = read_all(Source(here))
    limit = sum(map(len, expected)) // 3
    held = Source(there, cache=CacheOptions(str(tmp_path / "cache"), limit / 1e9))
    for _ in range(2):
        for place, content in zip(((s, r) for s, n in enumerate(COUNTS) for r in range(n)), expected, strict=True):
            assert held.read(*place) == content
            assert size_of(tmp_path / "cache") <= limit
    requests.clear()
    assert held.read(len(COUNTS) - 1, COUNTS[-1] - 1) == expected[-1]
    assert requests == []


def hammer(folder, seed, largest):
    """Ask for pieces of 1 kB at random."""
    kept, rng = ShardCache(folder, 40_000), np.random.default_rng(seed)
    for number in rng.integers(0, 100, 300).tolist():
        content = bytes([number]) * 1000
        assert kept.get(str(number), lambda content=content: content, 10, 20) == content[10:20]
        # Nobody else writes or makes room while the files are counted.
        with kept._locked("total"):
            largest.value = max(largest.value, size_of(folder))


def test_several_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    largest = context.Value("l", 0)
    processes = [context.Process(target=hammer, args=(str(tmp_path), seed, largest)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert 20_000 < largest.value <= 40_000


def test_an_interrupted_write_never_loosens_the_bound(tmp_path, monkeypatch):
    kept = ShardCache(str(tmp_path), 5_000)
    with monkeypatch.context() as patched:
        real = cache.filesystem.write_bytes

        def stop(path, data):
            if path.endswith(".piece"):
                raise KeyboardInterrupt
            real(path, data)

        patched.setattr(cache.filesystem, "write_bytes", stop)
        for number in range(4):
            with pytest.raises(KeyboardInterrupt):
                kept.get(str(number), lambda: b"x" * 1000)
    for number in range(30):
        assert kept.get(str(number), lambda: b"y" * 1000) == b"y" * 1000
        assert size_of(tmp_path) <= 5_000


@pytest.mark.parametrize("options", [CacheOptions("gs://bucket/cache"), CacheOptions("folder", 0.0)])
def test_a_cache_that_cannot_be_is_refused(options):
    with pytest.raises(UsageError, match="must be a local folder of a positive size"):
        options.open()
