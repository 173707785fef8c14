"""One file layer for every path the project reads or writes, on local disks and in `gs://` buckets.

A path is a plain string. A file becomes visible under its name only when it is complete, even if the process that
writes it is killed, so every visible file can be read. Two writers of one object in a bucket never mix: the second one
gets an error.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from shards.storage import local_files
from shards.storage.errors import BusyError, ExistsError, StorageError
from shards.storage.local_files import TEMPORARY_PREFIX

__all__ = ["TEMPORARY_PREFIX", "BusyError", "ExistsError", "StorageError"]

_BUCKETS = "gs://"
_POLL_SECONDS = 0.5
_ANY_LENGTH = 1 << 40
_WILDCARD = re.compile(r"[*?\[]")


def is_remote(path: str) -> bool:
    """Return whether a path is in a bucket."""
    return path.startswith(_BUCKETS)


def _layer(path: str) -> ModuleType:
    if is_remote(path):
        # The client library takes a second to import; jobs on local files do not need it.
        from shards.storage import object_store

        return object_store
    if "://" in path:
        raise StorageError(f"{path!r} is neither a local path nor a gs:// address")
    return local_files


def join(folder: str, *names: str) -> str:
    """Return the path of `names` joined under `folder`."""
    return "/".join([folder.rstrip("/") or "/", *names])


def folder_of(path: str) -> str:
    """Return the parent folder of a path."""
    above, slash, _ = path.rstrip("/").rpartition("/")
    return above or slash or "."


def exists(path: str) -> bool:
    """Return whether a file or folder exists."""
    return _layer(path).exists(path)


def size(path: str) -> int:
    """Return the size of a file in bytes. Raises `StorageError` if it does not exist."""
    return _layer(path).size(path)


def open_read(path: str) -> BinaryIO:
    """Open a file for reading bytes. Raises `StorageError` with the path and the cause."""
    return _layer(path).open_read(path)


def read_bytes(path: str, start: int = 0, length: int | None = None) -> bytes:
    """Return the bytes `[start, start + length)` of a file, or all from `start`."""
    return _layer(path).read_bytes(path, start, length)


def read_end(path: str, length: int) -> bytes | None:
    """Return the last `length` bytes of a file, or the whole file if it is shorter; `None` if it does not exist.

    Sends one request.
    """
    return _layer(path).read_end(path, length)


def read_existing(path: str) -> bytes | None:
    """Return the bytes of a file, or `None` if it does not exist. Sends one request."""
    return read_end(path, _ANY_LENGTH)


def copy_to(path: str, target: Path) -> bool:
    """Copy a file to this machine in one request and return whether it exists."""
    return _layer(path).copy_to(path, target)


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the sorted paths of the finished files directly in `folder` that end in `suffix`.

    A folder that does not exist has no files.
    """
    return _layer(folder).list_files(folder, suffix)


def list_versions(folder: str) -> list[tuple[str, str]]:
    """Return sorted (path, version) pairs of the files directly in `folder`, from one listing.

    A version changes whenever the content does: size and modification time of a file, the generation of an object.
    """
    return _layer(folder).list_versions(folder)


def list_folders(folder: str) -> list[str]:
    """Return the sorted names of the folders directly in `folder`; empty if it does not exist."""
    return _layer(folder).list_folders(folder)


def matching(pattern: str) -> list[str]:
    """Return the sorted paths of the files and folders that match a pattern with `*`, `?` or `[...]`."""
    if not is_remote(pattern):
        return sorted(glob.glob(pattern))  # noqa: PTH207 - a pattern may be absolute
    parts = pattern.rstrip("/").split("/")
    first = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    paths = ["/".join(parts[:first])]
    for depth in range(first, len(parts)):
        names = [(folder, name) for folder in paths for name in list_folders(folder)]
        if depth == len(parts) - 1:
            names += [(folder, path.rpartition("/")[2]) for folder in paths for path in list_files(folder)]
        paths = [join(folder, name) for folder, name in names if fnmatch.fnmatchcase(name, parts[depth])]
    return sorted(paths)


def create(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a file that appears under its name only if the block ends without an exception.

    Creates parent folders. An existing file is replaced atomically; in a bucket, `StorageError` is raised if another
    writer replaced it since the block started.
    """
    return _layer(path).create(path)


def put(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a file as `create` does, without the check for other writers: for files with the same bytes every time."""
    return _layer(path).put(path)


def put_bytes(path: str, data: bytes) -> None:
    """Write a whole file atomically (see `put`)."""
    with put(path) as file:
        file.write(data)


def create_new(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a new file as `create` does. Raises `ExistsError` if the file exists when the block ends."""
    return _layer(path).create_new(path)


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace a file's content with `change(content)` atomically: a read-modify-write without lost updates.

    `change` receives `None` if the file does not exist. It is called again if another process changed the file.
    """
    _layer(path).update(path, change)


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file atomically (see `create`)."""
    with create(path) as file:
        file.write(data)


def append_line(path: str, line: bytes) -> None:
    """Append one line, which must not contain a line break; it is durable when this returns.

    On a disk, lines of several processes never mix, and a line torn by a killed process stays on a line of its own, so
    that a reader can drop it. In a bucket a file must have a single writer, and lines are never torn.
    """
    _layer(path).append_line(path, line)


def remove(path: str) -> None:
    """Remove a file if it exists, and its folder if that is empty now."""
    _layer(path).remove(path)


def remove_folder(folder: str) -> None:
    """Remove a folder on a disk with its content, if it exists; a bucket has no folders."""
    _layer(folder).remove_folder(folder)


def remove_temporary_files(folder: str) -> int:
    """Remove the unfinished files of killed processes under `folder` and return their number."""
    return _layer(folder).remove_temporary_files(folder)


def make_folder(folder: str) -> None:
    """Create a folder if necessary and check that it is writable. Raises `StorageError`."""
    _layer(folder).make_folder(folder)


@contextlib.contextmanager
def exclusive(path: str, patience: float | None = None) -> Iterator[None]:
    """Hold a lock for the duration of the block. Raises `BusyError` if another process holds it.

    A killed job never blocks the next one: on a disk the kernel releases the lock with the process; in a bucket the
    lock is a lease that is renewed while the block runs. Without `patience` an existing lease is watched until it
    expires or is renewed; with it, a lock that is not free is retried for `patience` seconds (0: no retry).
    """
    deadline = time.monotonic() + (patience or 0.0)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_layer(path).exclusive(path, watch=patience is None))
                break
            except BusyError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL_SECONDS)
        yield
