"""One file layer for every path the project reads or writes, on local disks and in `gs://` buckets.

A path is a plain string. A file becomes visible under its name only when it is complete, whatever happens to the
process that writes it, so readers may trust whatever they can see. Two writers of one object in a bucket never mix: the
one that comes second is told.
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
_LOOK_SECONDS = 0.5
_ANY_LENGTH = 1 << 40
_WILDCARD = re.compile(r"[*?\[]")


def is_remote(path: str) -> bool:
    """Whether a path is in a bucket."""
    return path.startswith(_BUCKETS)


def _layer(path: str) -> ModuleType:
    if is_remote(path):
        # The client library takes a second to import, which jobs on local files should not pay.
        from shards.storage import object_store

        return object_store
    if "://" in path:
        raise StorageError(f"{path!r} is neither a local path nor a gs:// address")
    return local_files


def join(folder: str, *names: str) -> str:
    """The path of `names` under `folder`."""
    return "/".join([folder.rstrip("/") or "/", *names])


def folder_of(path: str) -> str:
    """The folder that a path is in."""
    above, slash, _ = path.rstrip("/").rpartition("/")
    return above or slash or "."


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return _layer(path).exists(path)


def size(path: str) -> int:
    """Bytes of a file. Raises `StorageError` when it is not there."""
    return _layer(path).size(path)


def open_read(path: str) -> BinaryIO:
    """A file opened for reading bytes. Raises `StorageError` with the path and the cause."""
    return _layer(path).open_read(path)


def read_bytes(path: str, start: int = 0, length: int | None = None) -> bytes:
    """The bytes `[start, start + length)` of a file, or all from `start`."""
    return _layer(path).read_bytes(path, start, length)


def read_end(path: str, length: int) -> bytes | None:
    """The last `length` bytes of a file, all of it if it is shorter; `None` if there is no file. One request."""
    return _layer(path).read_end(path, length)


def read_existing(path: str) -> bytes | None:
    """The bytes of a file, or `None` if there is no file. One request."""
    return read_end(path, _ANY_LENGTH)


def copy_to(path: str, target: Path) -> bool:
    """Copy a file to this machine, in one request; whether there is one."""
    return _layer(path).copy_to(path, target)


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Sorted paths of the finished files directly in `folder` that end in `suffix`; empty if there is no folder."""
    return _layer(folder).list_files(folder, suffix)


def list_versions(folder: str) -> list[tuple[str, str]]:
    """Sorted pairs of the path of a file directly in `folder` and what changes when its content does; by one listing.

    That is size and time of a file, and the generation of an object.
    """
    return _layer(folder).list_versions(folder)


def list_folders(folder: str) -> list[str]:
    """Sorted names of the folders directly in `folder`; empty if there is no folder."""
    return _layer(folder).list_folders(folder)


def matching(pattern: str) -> list[str]:
    """Sorted paths of the files and folders that a pattern with `*`, `?` or `[...]` matches, in buckets too."""
    if not is_remote(pattern):
        return sorted(glob.glob(pattern))  # noqa: PTH207 - a pattern may be absolute
    parts = pattern.rstrip("/").split("/")
    first = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    found = ["/".join(parts[:first])]
    for depth in range(first, len(parts)):
        names = [(folder, name) for folder in found for name in list_folders(folder)]
        if depth == len(parts) - 1:
            names += [(folder, path.rpartition("/")[2]) for folder in found for path in list_files(folder)]
        found = [join(folder, name) for folder, name in names if fnmatch.fnmatchcase(name, parts[depth])]
    return sorted(found)


def create(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a file that appears under its name only if the block ends without an exception.

    Parent folders are made. An existing file is replaced in one step; in a bucket only if nobody else replaced it since
    the block began, else `StorageError` is raised.
    """
    return _layer(path).create(path)


def put(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a file as `create` does, but never refuse: for files of which every writer writes the same bytes."""
    return _layer(path).put(path)


def put_bytes(path: str, data: bytes) -> None:
    """Write a whole file in one step (see `put`)."""
    with put(path) as file:
        file.write(data)


def create_new(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a file as `create` does, but only if there is none. Raises `ExistsError` if there is one, at the end."""
    return _layer(path).create_new(path)


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace a file's content by `change(content)`, with nobody else's change in between.

    `change` gets `None` where there is no file. It may be called again if another process changed the file meanwhile.
    """
    _layer(path).update(path, change)


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file in one step (see `create`)."""
    with create(path) as file:
        file.write(data)


def append_line(path: str, line: bytes) -> None:
    """Append one line without a line break in it; it is stored when this returns.

    On a disk, lines of several processes never mix, and a line torn by a killed process stays alone, so that a reader
    can drop it. In a bucket a file must have one writer, and lines are never torn.
    """
    _layer(path).append_line(path, line)


def remove(path: str) -> None:
    """Remove a file if it is there, and its folder if that is empty now."""
    _layer(path).remove(path)


def remove_folder(folder: str) -> None:
    """Remove a folder on a disk with all that is in it, if it is there; in a bucket there are none."""
    _layer(folder).remove_folder(folder)


def remove_temporary_files(folder: str) -> int:
    """Sweep what killed processes left unfinished under `folder`; returns how many went."""
    return _layer(folder).remove_temporary_files(folder)


def make_folder(folder: str) -> None:
    """Make sure a folder is there and can be written to. Raises `StorageError`."""
    _layer(folder).make_folder(folder)


@contextlib.contextmanager
def exclusive(path: str, patience: float | None = None) -> Iterator[None]:
    """Hold a lock file for the duration of the block. Raises `BusyError` if another process holds it.

    A killed job never blocks the next one: on a disk the kernel drops the lock with the process; in a bucket it is a
    lease that is renewed while the block runs. Without `patience` a lease is watched until it expires or is seen to be
    renewed; with it, a lock that is not free is asked for again for so many seconds, 0 for not at all.
    """
    deadline = time.monotonic() + (patience or 0.0)
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(_layer(path).exclusive(path, watch=patience is None))
                break
            except BusyError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_LOOK_SECONDS)
        yield
