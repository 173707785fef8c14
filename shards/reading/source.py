"""The records of one data set, each by its shard and number, checked as it is read.

What is wrong with the data is said here: a missing, truncated or exchanged shard, an index of another shard, a flipped
bit. Errors of the storage that may pass are tried again first.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from shards.dataset import location as dataset
from shards.dataset.manifest import index_path
from shards.reading.cache import CacheOptions
from shards.records import tfrecord
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError
from shards.storage.filesystem import StorageError

_BLOCK_BYTES = 8 << 20
_HELD_INDEXES = 512
_OPENING_THREADS = 16
_BACKOFF_SECONDS = (0.1, 0.5, 2.0)
_FINAL = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
"""Causes that waiting does not cure."""


class ShardError(UserError):
    """A shard or its index is not what it should be; the message names the file and says what to do."""


class Source:
    """A data set whose records can be read in any order.

    `data` is whatever `dataset.open_data` takes; `files` is the number of files of a published pattern; what is read
    from a bucket stays in `cache`. Raises `UsageError` if there is nothing to read or the split must be named,
    `ShardError` if a shard is missing.
    """

    def __init__(
        self,
        data: str,
        split: str | None = None,
        files: int | None = None,
        cache: CacheOptions | None = None,
    ):
        opened = dataset.open_data(data, split, files)
        self._names = [opened.names[path] for path in opened.shards]
        self.folder, self.manifest, self._paths = opened.folder, opened.manifest, opened.shards
        self._cache = cache.open() if cache and any(map(filesystem.is_remote, self._paths)) else None
        if self.manifest and split is None and len(self.manifest.splits()) > 1:
            raise UsageError(f"{data!r} has the splits {', '.join(self.manifest.splits())}; say which one to read")
        self._offsets: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        if self.manifest:
            folders = dict.fromkeys(map(filesystem.folder_of, self._paths))
            present = {path for folder in folders for path in filesystem.list_files(folder)}
            if missing := [path for path in self._paths if path not in present]:
                raise ShardError(f"{len(missing)} shards of the manifest are missing, the first is {missing[0]!r}")
            self._claims = [opened.claims[path] for path in self._paths]
            self.counts = np.array([shard.examples for shard in self._claims], np.int64)
        else:
            self._claims = None
            with ThreadPoolExecutor(_OPENING_THREADS) as pool:
                self.counts = np.array(list(pool.map(self._count, range(len(self._paths)))), np.int64)
        if not self.counts.sum():
            raise UsageError(f"{data!r} holds no examples")

    def __getstate__(self) -> dict[str, object]:
        """What a worker process needs: it reads the indexes itself."""
        return vars(self) | {"_offsets": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    @cached_property
    def digest(self) -> str:
        """What the order of the records depends on: the names of the shards and their sizes."""
        names = [(name, int(n)) for name, n in zip(self._names, self.counts, strict=True)]
        return hashlib.sha256(repr(names).encode()).hexdigest()

    def name(self, shard: int, record: int) -> str:
        """The name of a record, the same wherever the folder is."""
        return f"{self._names[shard]}#{record}"

    def where(self, shard: int, record: int) -> str:
        """The record's file and place in it, for messages."""
        return f"record {record} of {self._paths[shard]!r} at byte {int(self._index(shard)[record])}"

    def read(self, shard: int, record: int) -> bytes:
        """The bytes of a record.

        Raises `RecordError` if its checksum disagrees, `ShardError` if its file is not the one that the index or the
        manifest describes, `StorageError` if it cannot be read even after waiting.
        """
        index = self._index(shard)
        start, stop = int(index[record]), int(index[record + 1])
        framed = _patiently(lambda: self._range(shard, start, stop, int(index[-1])))
        return tfrecord.unframe(framed, self.where(shard, record))

    def _range(self, shard: int, start: int, stop: int, size: int) -> bytes:
        """The bytes `[start, stop)` of a shard of `size` bytes, whole blocks of which are kept in the cache."""
        path = self._paths[shard]
        if self._cache is None:
            return filesystem.read_bytes(path, start, stop - start)
        parts = []
        for first in range(start - start % _BLOCK_BYTES, stop, _BLOCK_BYTES):
            length = min(_BLOCK_BYTES, size - first)
            fetch = functools.partial(filesystem.read_bytes, path, first, length)
            name = f"{self._version(shard)} {first}"
            parts.append(self._cache.get(name, fetch, max(start - first, 0), min(stop - first, length)))
        return b"".join(parts)

    def _version(self, shard: int) -> str:
        """What tells a shard from all others, also from one of the same name that was made another time."""
        return f"{self._paths[shard]} {self._claims[shard].sha256 if self._claims else ''}"

    def _count(self, shard: int) -> int:
        path = index_path(self._paths[shard])
        if filesystem.exists(path):
            return _patiently(lambda: filesystem.size(path)) // 8 - 1
        return len(self._index(shard)) - 1

    def _index(self, shard: int) -> np.ndarray:
        with self._lock:
            held = self._offsets.get(shard)
            if held is not None:
                self._offsets.move_to_end(shard)
                return held
        offsets = _patiently(lambda: self._kept_index(shard))
        with self._lock:
            self._offsets[shard] = offsets
            while len(self._offsets) > _HELD_INDEXES:
                self._offsets.popitem(last=False)
        return offsets

    def _kept_index(self, shard: int) -> np.ndarray:
        if self._cache is None:
            return self._load_index(shard)
        content = self._cache.get(f"{self._version(shard)} index", lambda: self._load_index(shard).tobytes())
        return np.frombuffer(content, np.int64)

    def _load_index(self, shard: int) -> np.ndarray:
        path, index = self._paths[shard], index_path(self._paths[shard])
        size = filesystem.size(path)
        if self._claims and self._claims[shard].bytes != size:
            raise ShardError(
                f"{path!r} has {size} bytes and the manifest says {self._claims[shard].bytes}; it is truncated or was"
                " exchanged, restore the file"
            )
        if not filesystem.exists(index):
            if self._claims:
                raise ShardError(f"the index {index!r} is missing; restore the file")
            return _walk(path)
        content = filesystem.read_bytes(index)
        if len(content) % 8:
            raise ShardError(f"the index {index!r} has {len(content)} bytes, not a multiple of 8; restore the file")
        offsets = np.frombuffer(content, "<u8").astype(np.int64)
        expected = self._claims[shard].examples if self._claims else max(len(offsets) - 1, 0)
        if len(offsets) != expected + 1 or offsets[0] or offsets[-1] != size or (np.diff(offsets) <= 0).any():
            raise ShardError(f"the index {index!r} is not the one of its shard; remove or restore it")
        return offsets


def _walk(path: str) -> np.ndarray:
    """The offsets of the records and the end of a shard without an index, from the headers alone."""
    offsets, size = [0], filesystem.size(path)
    with filesystem.open_read(path) as file:
        while offsets[-1] < size:
            file.seek(offsets[-1])
            header = file.read(tfrecord.HEADER_BYTES)
            length = int.from_bytes(header[:8], "little")
            sound = tfrecord.masked_crc(header[:8]).to_bytes(4, "little") == header[8:]
            offsets.append(offsets[-1] + tfrecord.HEADER_BYTES + length + tfrecord.FOOTER_BYTES)
            if not sound and not offsets[-2] and (advice := tfrecord.compression(header)):
                raise ShardError(f"{path!r} {advice}")
            if not sound or offsets[-1] > size:
                raise ShardError(f"{path!r} is damaged or cut short after byte {offsets[-2]}; restore the file")
    return np.array(offsets, np.int64)


def _patiently(read):
    """The result of `read`, tried again after errors of the storage that may pass."""
    for pause in _BACKOFF_SECONDS:
        try:
            return read()
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno in _FINAL:
                raise
            time.sleep(pause)
    return read()
