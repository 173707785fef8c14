"""Folders in `gs://` buckets as the paths that Orbax works with; importing this module makes Orbax use them.

Its own path layer would go through TensorFlow's file system, a second client with endpoint, credentials and retries of
its own. Here all but the arrays goes through `shards.storage.filesystem`, and TensorStore writes the arrays. A bucket
has no folders: one is there when something lies in it, and a checkpoint is complete when Orbax has written its mark,
which it does last.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator
from os import PathLike

from etils import epath
from etils.epath.gpath import PosixGPath

from shards.storage import filesystem


@epath.register_path_cls("gs://")
class BucketPath(PosixGPath):
    """A path in a bucket, with the methods that Orbax calls.

    They raise `StorageError`, and `FileNotFoundError` where those of a local path do.
    """

    def exists(self) -> bool:
        """Return whether an object of this name is there, or something under it."""
        return filesystem.exists(str(self))

    def is_dir(self) -> bool:
        """Return whether something lies in it."""
        return next(self.iterdir(), None) is not None

    def iterdir(self) -> Iterator[BucketPath]:
        """Yield what lies directly in it, files first."""
        yield from map(self._new, filesystem.list_files(str(self)))
        yield from (self / name for name in filesystem.list_folders(str(self)))

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """Return what is under it and has names like those of `pattern`, part by part."""
        first, _, rest = pattern.partition("/")
        matches = (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, first))
        return (deeper for path in matches for deeper in path.glob(rest)) if rest else matches

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Refuse what is there already; a folder comes with what is put into it."""
        del mode, parents
        if not exist_ok and self.exists():
            raise FileExistsError(f"{str(self)!r} is there already")

    def rmtree(self, missing_ok: bool = False) -> None:
        """Delete all that is under it, the marks of completeness first."""
        matches = self._files()
        if not matches and not missing_ok:
            raise FileNotFoundError(f"{str(self)!r} is not there")
        for path in matches:
            filesystem.remove(str(path))

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(f"{str(self)!r} is not there")
        filesystem.remove(str(self))

    def read_bytes(self) -> bytes:
        """Return the content of an object."""
        if not self.is_file():
            raise FileNotFoundError(f"{str(self)!r} is not there")
        return filesystem.read_bytes(str(self))

    def read_text(self, encoding: str | None = None) -> str:
        """Return the content of an object as text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: bytes) -> int:
        """Write an object in one step."""
        filesystem.write_bytes(str(self), data)
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        """Write an object of text in one step."""
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def rename(self, target: str | PathLike[str]) -> BucketPath:
        """Copy all that is under it and then delete it; a bucket cannot do it in one step."""
        target = self._new(target)
        # The marks of completeness come last there and go first here.
        for path in reversed(self._files()):
            with (
                filesystem.open_read(str(path)) as source,
                filesystem.create(str(target / path.relative_to(self))) as copy,
            ):
                shutil.copyfileobj(source, copy)
        self.rmtree()
        return target

    def _files(self) -> list[BucketPath]:
        """Return all objects under it, those of a folder before those of the folders in it."""
        folders = [self / name for name in filesystem.list_folders(str(self))]
        here = [self._new(path) for path in filesystem.list_files(str(self))]
        return here + [path for folder in folders for path in folder._files()]
