"""Pieces of remote shards kept on a disk of the host, so that a second epoch asks the bucket for nothing.

All processes of a host share the folder. Its size is bounded; the pieces that were read longest ago make room. A piece
is one file, written in one step, so a killed process leaves nothing that could be mistaken for one.
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
"""The file with the number of bytes kept."""

_LEFT_AFTER_CLEARING = 0.9
"""Share of the bound that stays when room is made, so that this happens now and then only."""


@dataclass(frozen=True)
class CacheOptions:
    """Where pieces of shards in a bucket are kept, and how many."""

    cache_dir: str | None = None
    """A folder on a disk of this host that keeps what is read from a bucket; nothing is kept by default."""
    cache_gb: float = 100.0
    """The most that it keeps."""

    def open(self) -> ShardCache | None:
        """The cache, if one is wanted. Raises `UsageError` for a folder in a bucket or no room."""
        if self.cache_dir is None:
            return None
        if filesystem.is_remote(self.cache_dir) or self.cache_gb <= 0:
            raise UsageError(f"--cache-dir {self.cache_dir!r} of {self.cache_gb:g} GB must be a folder here with room")
        return ShardCache(self.cache_dir, int(self.cache_gb * 1e9))


class ShardCache:
    """A folder of at most `limit` bytes of pieces."""

    def __init__(self, folder: str, limit: int):
        self.folder, self.limit = Path(folder), limit
        filesystem.make_folder(folder)

    def get(self, name: str, fetch: Callable[[], bytes], start: int = 0, stop: int | None = None) -> bytes:
        """The bytes `[start, stop)` of the piece `name`, which `fetch` gives as a whole where it is not kept."""
        path = self._path(name)
        held = _read(path, start, stop)
        if held is None:
            # Threads and processes that want the same piece wait for the one that fetches it.
            with self._locked(f"fetching-{path.parent.name}"):
                held = _read(path, start, stop)
                if held is None:
                    content = fetch()
                    self._keep(path, content)
                    held = content[start:stop]
        return held

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:40]}{_SUFFIX}"

    def _keep(self, path: Path, content: bytes) -> None:
        if len(content) > self.limit:
            return
        # Counted first and written afterwards: whoever is killed in between leaves a sum that is too large, never one
        # too small, and the next clearing counts anew.
        with self._locked(_TOTAL) as file:
            try:
                total = int(file.read() or 0)
            except ValueError:
                total = self.limit
            total += len(content)
            if total > self.limit:
                total = self._clear(len(content)) + len(content)
            file.seek(0)
            file.write(b"%020d" % total)
            file.flush()
            filesystem.write_bytes(str(path), content)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[BinaryIO]:
        """A file of the folder, for one thread of all processes at a time."""
        import fcntl

        with os.fdopen(os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _clear(self, needed: int) -> int:
        """Make room for so many bytes; how many are left."""
        pieces = []
        for path in self.folder.glob(f"*/*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                pieces.append((found.st_mtime_ns, found.st_size, path))
        left = sum(size for _, size, _ in pieces)
        bound = min(_LEFT_AFTER_CLEARING * self.limit, self.limit - needed)
        for _, size, path in sorted(pieces, key=lambda piece: piece[0]):
            if left <= bound:
                break
            path.unlink(missing_ok=True)
            left -= size
        return left


def _read(path: Path, start: int, stop: int | None) -> bytes | None:
    """A part of a piece, which counts as read now; `None` if it is not kept."""
    try:
        with path.open("rb") as file:
            os.utime(path)
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)
    except FileNotFoundError:
        return None
