"""What a person may give as DATA: a data folder, its manifest, a shard, a pattern, or a list of these.

Shards of the published system have no manifest; a folder or a pattern of them is read all the same. Several data
folders are read as one whose manifest is merged in memory (see `shards.dataset.merging`).
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property

from shards.dataset import manifest, merging
from shards.dataset.manifest import Manifest, Shard
from shards.storage import filesystem
from shards.storage.errors import UsageError

SUFFIX = ".tfrecord"


@dataclass(frozen=True)
class DataSet:
    """The shard files that DATA means, in order, their folder, and the manifest if there is one.

    Of several data folders `folder` is the first, which has the vocabulary of all; `several` is true then.
    """

    folder: str
    shards: list[str]
    manifest: Manifest | None
    several: bool = False

    @cached_property
    def claims(self) -> dict[str, Shard]:
        """What the manifest says of each path, for all splits; empty without one."""
        return self.manifest.located(self.folder) if self.manifest else {}

    @cached_property
    def names(self) -> dict[str, str]:
        """A name for each path, different for all shards and the same wherever the folders are.

        The file's name, with the folder's place in the list before it if two folders have files of one name.
        """
        bare = {path: path.rpartition("/")[2] for path in self.shards}
        if len(set(bare.values())) == len(bare):
            return bare
        folders = {folder: i for i, folder in enumerate(dict.fromkeys(map(filesystem.folder_of, self.shards)))}
        return {path: f"{folders[filesystem.folder_of(path)]:04d}/{name}" for path, name in bare.items()}


def open_data(data: str, split: str | None = None, count: int | None = None) -> DataSet:
    """The data set behind `data`.

    This is a data folder, a manifest, a shard, a published pattern with `{:05d}`, a pattern of shards or of data
    folders, or a list of any of these separated by commas. `count` is the number of files of a published pattern.
    Raises `UsageError` if nothing is there or folders with and without a manifest are mixed, `ManifestError` if a
    manifest is damaged, `MergeError` if data folders do not agree.
    """
    pieces = [piece for part in _parts(data) for piece in _pieces(part, split, count)]
    folders = [piece for piece in pieces if not piece.endswith(SUFFIX)]
    if not pieces:
        raise UsageError(f"{data!r} holds no shards: no {manifest.NAME} and no *{SUFFIX} file")
    if not folders:
        return DataSet(filesystem.folder_of(pieces[0]), pieces, None)
    if len(folders) < len(pieces):
        raise UsageError(f"{data!r} mixes data folders such as {folders[0]!r} with shards; give either")
    several = len(folders) > 1
    if several:
        folders = list(map(merging.absolute, folders))
    held = merging.merge([(f, manifest.load(f)) for f in folders]) if several else manifest.load(folders[0])
    if split is not None and split not in held.splits():
        raise UsageError(f"{data!r} has no split {split!r}; it has {', '.join(held.splits()) or 'none'}")
    return DataSet(folders[0], list(held.located(folders[0], split)), held, several)


def data_folders(data: str) -> list[str]:
    """The data folders that a folder, a pattern or a list of these means. Raises `UsageError` for anything else."""
    pieces = [piece for part in _parts(data) for piece in _pieces(part, None, None)]
    if not pieces or any(piece.endswith(SUFFIX) for piece in pieces):
        raise UsageError(f"{data!r} is not a data folder with a {manifest.NAME}, nor a pattern or list of such")
    return pieces


def _parts(data: str) -> list[str]:
    return [part for part in data.split(",") if part] if "," in data and not filesystem.exists(data) else [data]


def _pieces(data: str, split: str | None, count: int | None) -> list[str]:
    """The data folders with a manifest that a part of DATA means, or else its shards."""
    if folder := _data_folder(data):
        return [folder]
    if any(field is not None for _, field, _, _ in string.Formatter().parse(data)):
        paths = [data.format(i) for i in range(count or 0)]
        return [path for path in paths if filesystem.exists(path)]
    if any(mark in data for mark in "*?["):
        matched = filesystem.matching(data)
        files = [path for path in matched if path.endswith(SUFFIX)]
        return files or [folder for path in matched if (folder := _data_folder(path))]
    if data.endswith(SUFFIX):
        return [data] if filesystem.exists(data) else []
    files = filesystem.list_files(data, SUFFIX)
    return [f for f in files if split is None or f.rpartition("/")[2].startswith(split)]


def _data_folder(path: str) -> str:
    """The data folder behind a folder or a manifest; empty if there is no manifest."""
    folder = path.removesuffix(f"/{manifest.NAME}")
    return folder if filesystem.exists(filesystem.join(folder, manifest.NAME)) else ""
