"""The file layer on local disks; `shards.storage.filesystem` chooses it for paths without a scheme.

A file is written under a temporary name in the same folder, flushed to the disk and renamed. A killed process leaves at
most a file that starts with `TEMPORARY_PREFIX`, which `remove_temporary_files` removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from shards.storage.errors import BusyError, ExistsError, StorageError

TEMPORARY_PREFIX = ".incomplete-"


def exists(path: str) -> bool:
    """Return whether a file or folder exists. Raises `StorageError` for a string that cannot be a path."""
    with _named(path):
        return Path(path).exists()


def size(path: str) -> int:
    """Return the size of a file in bytes. Raises `StorageError` if it does not exist."""
    with _named(path):
        return Path(path).stat().st_size


def open_read(path: str) -> BinaryIO:
    """Open a file for reading bytes. Raises `StorageError` with the path and the cause."""
    with _named(path):
        return Path(path).open("rb")


def read_bytes(path: str, start: int, length: int | None) -> bytes:
    """Return the bytes `[start, start + length)` of a file, or all from `start`."""
    with open_read(path) as file, _named(path):
        file.seek(start)
        return file.read() if length is None else file.read(length)


def read_end(path: str, length: int) -> bytes | None:
    """Return the last `length` bytes of a file, or the whole file if it is shorter; `None` if it does not exist."""
    with _named(path):
        try:
            with Path(path).open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - length, 0))
                return file.read()
        except FileNotFoundError:
            return None


def copy_to(path: str, target: Path) -> bool:
    """Copy a file and return whether it exists."""
    with _named(path):
        try:
            shutil.copyfile(path, target)
        except FileNotFoundError:
            return False
    return True


def list_files(folder: str, suffix: str) -> list[str]:
    """Return the sorted paths of the finished files directly in `folder` that end in `suffix`."""
    if not _is_folder(folder):
        return []
    with _named(folder):
        entries = list(os.scandir(folder))
    names = (e.name for e in entries if e.is_file() and e.name.endswith(suffix))
    start = folder.rstrip("/") or "/"
    return [f"{start}/{name}" for name in sorted(names) if not name.startswith(TEMPORARY_PREFIX)]


def list_versions(folder: str) -> list[tuple[str, str]]:
    """Return the files that `list_files` lists, each with its version: size and modification time."""
    if not _is_folder(folder):
        return []
    start = folder.rstrip("/") or "/"
    versions = []
    with _named(folder):
        for entry in os.scandir(folder):
            if entry.name.startswith(TEMPORARY_PREFIX) or not entry.is_file():
                continue
            # A file that is removed while the folder is listed counts as removed.
            with contextlib.suppress(FileNotFoundError):
                versions.append((f"{start}/{entry.name}", _version(entry.stat())))
    return sorted(versions)


def _is_folder(folder: str) -> bool:
    with _named(folder):
        return Path(folder).is_dir()


def version(path: str) -> str:
    """Return the version of a file as `list_versions` does; empty if the file does not exist."""
    with contextlib.suppress(OSError):
        return _version(Path(path).stat())
    return ""


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def list_folders(folder: str) -> list[str]:
    """Return the sorted names of the folders directly in `folder`; empty if it does not exist."""
    with _named(folder):
        return sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir()) if exists(folder) else []


def create(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a file that appears under its name only if the block ends without an exception.

    Creates parent folders. An existing file is replaced atomically.
    """
    return _written(path, lambda temporary, target: temporary.replace(target))


put = create
"""On a disk writers do not detect each other: the last one to finish wins."""


def create_new(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Write a new file as `create` does. Raises `ExistsError` if the file exists when the block ends."""

    def place(temporary: Path, target: Path) -> None:
        try:
            # Unlike a rename, a link fails where a file exists.
            target.hardlink_to(temporary)
        except FileExistsError:
            raise ExistsError(f"{path!r} already exists") from None
        temporary.unlink()

    return _written(path, place)


@contextlib.contextmanager
def _written(path: str, place: Callable[[Path, Path], object]) -> Iterator[BinaryIO]:
    """Write a temporary file next to a path, flush it to the disk, and publish it with `place(temporary, target)`."""
    target = Path(path)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{target.name[-180:]}")
    with _named(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    try:
        with _named(path, file), file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _named(path):
            place(temporary, target)
            _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def update(path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace a file's content with `change(content)` under a lock of its folder."""
    folder = Path(path).parent
    with _named(path):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        content = change(read_bytes(path, 0, None) if exists(path) else None)
        with create(path) as file:
            file.write(content)
    finally:
        os.close(descriptor)


def append_line(path: str, line: bytes) -> None:
    """Append one line with a single write, so that lines of several processes never mix.

    `line` must not contain a line break. A process killed in the middle leaves a last line without one; the next call
    terminates it first, so the torn line stays on a line of its own and a reader can drop it.
    """
    target = Path(path)
    with _named(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            data = (b"\n" if torn else b"") + line + b"\n"
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file if it exists, and its folder if that is empty now."""
    target = Path(path)
    with _named(path):
        target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        target.parent.rmdir()


def remove_folder(folder: str) -> None:
    """Remove a folder with its content, if it exists."""
    with _named(folder), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def remove_temporary_files(folder: str) -> int:
    """Remove the unfinished files and folders of killed processes under `folder` and return their number."""
    if not _is_folder(folder):
        return 0
    leftovers = list(Path(folder).rglob(f"{TEMPORARY_PREFIX}*"))
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


def make_folder(folder: str) -> None:
    """Create a folder if necessary and check that it is writable. Raises `StorageError`."""
    with _named(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise StorageError(f"cannot write to the folder {folder!r}: permission denied")


@contextlib.contextmanager
def exclusive(path: str, watch: bool) -> Iterator[None]:
    """Hold a lock file for the duration of the block. Raises `BusyError` at once if another process holds it.

    The kernel releases the lock with the process, so `watch` (see `object_store.exclusive`) has no effect.
    """
    del watch
    target = Path(path)
    with _named(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"another job is writing to {str(target.parent)!r}; wait for it or choose another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(path: str, file: BinaryIO | None = None) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError` that names the path and, on a full disk, the size of `file`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if file is not None and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(_no_space(path, file)) from error
        cause = os.strerror(error.errno).lower() if error.errno else str(error)
        raise StorageError(f"cannot access {path!r}: {cause}") from error


def _no_space(path: str, file: BinaryIO) -> str:
    free = shutil.disk_usage(Path(path).parent).free
    written = 0 if file.closed else file.tell()
    return (
        f"cannot write {path!r}: no space left on its disk; the file has more than {written / 1e3:,.0f} kB, and"
        f" {free / 1e3:,.0f} kB are free; free some space and run the same command again"
    )
