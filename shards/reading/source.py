"""Random access to the records of one data set by shard and number, with integrity checks.

Detects missing, truncated and replaced shards, wrong indexes and flipped bits. Transient storage errors are retried.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

from shards.dataset import location as dataset
from shards.dataset.manifest import Shard, index_path
from shards.reading.cache import CacheOptions
from shards.records import tfrecord
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError
from shards.storage.filesystem import StorageError

_T = TypeVar("_T")

_Offsets = Int64[np.ndarray, "boundaries"]
"""The start of each record of a shard, and the end of the last one."""

_BLOCK_BYTES = 8 << 20
_CACHED_INDEXES = 512
_OPENING_THREADS = 16
_BACKOFF_SECONDS = (0.1, 0.5, 2.0)
_FINAL = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}
"""Errors that are not retryable."""


class ShardError(UserError):
    """A shard or its index is missing or damaged; the message names the file and the remedy."""


class Source:
    """A data set with random access to its records.

    `data` is an argument of `dataset.open_data`; `files` is the number of files of a published pattern; `cache` stores
    data read from a bucket. `counts` are the records per shard. Raises `UsageError` if there are no examples or the
    split is ambiguous, `ShardError` if a shard is missing.
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
            raise UsageError(f"{data!r} has the splits {', '.join(self.manifest.splits())}; name the one to read")
        self._offsets: OrderedDict[int, _Offsets] = OrderedDict()
        self._lock = threading.Lock()
        self._claims: list[Shard] | None = None
        self.counts: Int64[np.ndarray, "shards"]
        if self.manifest:
            folders = dict.fromkeys(map(filesystem.folder_of, self._paths))
            present = {path for folder in folders for path in filesystem.list_files(folder)}
            if missing := [path for path in self._paths if path not in present]:
                raise ShardError(
                    f"{len(missing)} shards of the manifest are missing, the first is {missing[0]!r}; restore the files"
                )
            self._claims = [opened.claims[path] for path in self._paths]
            self.counts = np.array([shard.examples for shard in self._claims], np.int64)
        else:
            with ThreadPoolExecutor(_OPENING_THREADS) as pool:
                self.counts = np.array(list(pool.map(self._count, range(len(self._paths)))), np.int64)
        if not self.counts.sum():
            raise UsageError(f"{data!r} contains no examples")

    def __getstate__(self) -> dict[str, object]:
        """Return the state for a worker process, without the indexes, which it reads itself."""
        return vars(self) | {"_offsets": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names and sizes of the shards, which determine the order of the records."""
        names = [(name, int(n)) for name, n in zip(self._names, self.counts, strict=True)]
        return hashlib.sha256(repr(names).encode()).hexdigest()

    def name(self, shard: int, record: int) -> str:
        """Return the name of a record, which does not depend on the location of the folder."""
        return f"{self._names[shard]}#{record}"

    def where(self, shard: int, record: int) -> str:
        """Return the file and the byte offset of a record, for messages."""
        return f"record {record} of {self._paths[shard]!r} at byte {int(self._index(shard)[record])}"

    def read(self, shard: int, record: int) -> bytes:
        """Return the bytes of a record.

        Raises `RecordError` if its checksum does not match, `ShardError` if its file does not match the index or the
        manifest, `StorageError` if it cannot be read after retries.
        """
        index = self._index(shard)
        start, stop = int(index[record]), int(index[record + 1])
        framed = _with_retries(lambda: self._range(shard, start, stop, int(index[-1])))
        return tfrecord.unframe(framed, self.where(shard, record))

    def _range(self, shard: int, start: int, stop: int, size: int) -> bytes:
        """Return the bytes `[start, stop)` of a shard of `size` bytes, through the cache in whole blocks."""
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
        """Return a cache key of a shard, which differs between shards of one name with different content."""
        return f"{self._paths[shard]} {self._claims[shard].sha256 if self._claims else ''}"

    def _count(self, shard: int) -> int:
        path = index_path(self._paths[shard])
        if filesystem.exists(path):
            return _with_retries(lambda: filesystem.size(path)) // 8 - 1
        return len(self._index(shard)) - 1

    def _index(self, shard: int) -> _Offsets:
        with self._lock:
            cached = self._offsets.get(shard)
            if cached is not None:
                self._offsets.move_to_end(shard)
                return cached
        offsets = _with_retries(lambda: self._cached_index(shard))
        with self._lock:
            self._offsets[shard] = offsets
            while len(self._offsets) > _CACHED_INDEXES:
                self._offsets.popitem(last=False)
        return offsets

    def _cached_index(self, shard: int) -> _Offsets:
        if self._cache is None:
            return self._load_index(shard)
        content = self._cache.get(f"{self._version(shard)} index", lambda: self._load_index(shard).tobytes())
        return np.frombuffer(content, np.int64)

    def _load_index(self, shard: int) -> _Offsets:
        path, index = self._paths[shard], index_path(self._paths[shard])
        size = filesystem.size(path)
        if self._claims and self._claims[shard].bytes != size:
            raise ShardError(
                f"{path!r} has {size} bytes instead of {self._claims[shard].bytes} as in the manifest; it was truncated"
                " or replaced, restore the file"
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
            raise ShardError(f"the index {index!r} does not match its shard; remove or restore it")
        return offsets


def _walk(path: str) -> _Offsets:
    """Return the offsets of a shard without an index, from the headers of its records alone."""
    offsets, size = [0], filesystem.size(path)
    with filesystem.open_read(path) as file:
        while offsets[-1] < size:
            file.seek(offsets[-1])
            header = file.read(tfrecord.HEADER_BYTES)
            length = int.from_bytes(header[:8], "little")
            is_valid = tfrecord.masked_crc(header[:8]).to_bytes(4, "little") == header[8:]
            offsets.append(offsets[-1] + tfrecord.HEADER_BYTES + length + tfrecord.FOOTER_BYTES)
            if not is_valid and not offsets[-2] and (advice := tfrecord.compression(header)):
                raise ShardError(f"{path!r} {advice}")
            if not is_valid or offsets[-1] > size:
                raise ShardError(f"{path!r} is damaged or truncated after byte {offsets[-2]}; restore the file")
    return np.array(offsets, np.int64)


def _with_retries(read: Callable[[], _T]) -> _T:
    """Return the result of `read`, retried with backoff after transient storage errors."""
    for pause in _BACKOFF_SECONDS:
        try:
            return read()
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno in _FINAL:
                raise
            time.sleep(pause)
    return read()
