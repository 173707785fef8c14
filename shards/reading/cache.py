"""A local disk cache of pieces of remote shards, so that later epochs send no requests to the bucket.

All processes of a host share the folder. Its size is bounded; the least recently used pieces are evicted. A piece is
one file, written atomically, so a killed process never leaves a partial one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shards.storage import filesystem
from shards.storage.errors import UsageError

_SUFFIX = ".piece"
_TOTAL = "total"
"""The file with the number of cached bytes."""

_KEPT_SHARE = 0.9
"""Share of the limit that stays cached after an eviction, so that evictions are rare."""


@dataclass(frozen=True)
class CacheOptions:
    """Folder and size of the local cache of shards in a bucket."""

    cache_dir: str | None = None
    """A local folder that caches data read from a bucket; no cache by default."""
    cache_gb: float = 100.0
    """Maximum size of the cache in GB."""

    def open(self) -> ShardCache | None:
        """Open the cache, if one is configured. Raises `UsageError` for a remote folder or a size of 0."""
        if self.cache_dir is None:
            return None
        if filesystem.is_remote(self.cache_dir) or self.cache_gb <= 0:
            raise UsageError(
                f"--cache-dir {self.cache_dir!r} of {self.cache_gb:g} GB must be a local folder of a positive size"
            )
        return ShardCache(self.cache_dir, int(self.cache_gb * 1e9))


class ShardCache:
    """A folder of at most `limit` bytes of pieces."""

    def __init__(self, folder: str, limit: int):
        self.folder, self.limit = Path(folder), limit
        filesystem.make_folder(folder)

    def get(self, name: str, fetch: Callable[[], bytes], start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes `[start, stop)` of the piece `name`; `fetch` returns the whole piece if it is not cached."""
        path = self._path(name)
        cached = _read(path, start, stop)
        if cached is None:
            # Threads and processes that need the same piece wait for the one that fetches it.
            with self._locked(f"fetching-{path.parent.name}"):
                cached = _read(path, start, stop)
                if cached is None:
                    content = fetch()
                    self._store(path, content)
                    cached = content[start:stop]
        return cached

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:40]}{_SUFFIX}"

    def _store(self, path: Path, content: bytes) -> None:
        if len(content) > self.limit:
            return
        # Counted first and written afterwards: a process killed in between leaves a total that is too large, never one
        # that is too small, and the next eviction counts again.
        with self._locked(_TOTAL) as file:
            try:
                total = int(file.read() or 0)
            except ValueError:
                total = self.limit
            total += len(content)
            if total > self.limit:
                total = self._evict(len(content)) + len(content)
            file.seek(0)
            file.write(b"%020d" % total)
            file.flush()
            filesystem.write_bytes(str(path), content)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[BinaryIO]:
        """Open a file of the folder under a lock that excludes all other threads and processes."""
        import fcntl

        with os.fdopen(os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _evict(self, needed: int) -> int:
        """Remove pieces until `needed` bytes fit, and return the number of bytes still cached."""
        pieces = []
        for path in self.folder.glob(f"*/*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                pieces.append((status.st_mtime_ns, status.st_size, path))
        cached = sum(size for _, size, _ in pieces)
        bound = min(_KEPT_SHARE * self.limit, self.limit - needed)
        for _, size, path in sorted(pieces, key=lambda piece: piece[0]):
            if cached <= bound:
                break
            path.unlink(missing_ok=True)
            cached -= size
        return cached


def _read(path: Path, start: int, stop: int | None) -> bytes | None:
    """Return a part of a piece and update its time of last use; `None` if it is not cached."""
    try:
        with path.open("rb") as file:
            os.utime(path)
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)
    except FileNotFoundError:
        return None
