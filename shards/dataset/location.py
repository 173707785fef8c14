"""Resolve the DATA argument of commands: a data folder, its manifest, a shard, a pattern, or a list of these.

Shards of the published system have no manifest; a folder or a pattern of them is accepted too. Several data folders are
read as one, with a manifest that is merged in memory (see `shards.dataset.merging`).
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
    """The resolved shard files."""

    folder: str
    """The folder of the shards; the first of several data folders, which share one vocabulary."""
    shards: list[str]
    """The paths of the shards in reading order."""
    manifest: Manifest | None
    """The manifest, if there is one."""
    several: bool = False
    """Whether there are several data folders."""

    @cached_property
    def claims(self) -> dict[str, Shard]:
        """The manifest's entry of each path, for all splits; empty without a manifest."""
        return self.manifest.located(self.folder) if self.manifest else {}

    @cached_property
    def names(self) -> dict[str, str]:
        """A unique name of each path that does not depend on the location of the folders.

        It is the file name, prefixed with the number of the folder if two folders have files of one name.
        """
        bare = {path: path.rpartition("/")[2] for path in self.shards}
        if len(set(bare.values())) == len(bare):
            return bare
        folders = {folder: i for i, folder in enumerate(dict.fromkeys(map(filesystem.folder_of, self.shards)))}
        return {path: f"{folders[filesystem.folder_of(path)]:04d}/{name}" for path, name in bare.items()}


def open_data(data: str, split: str | None = None, count: int | None = None) -> DataSet:
    """Resolve `data` to a data set.

    `data` is a data folder, a manifest, a shard, a published pattern with `{:05d}`, a pattern of shards or of data
    folders, or a comma-separated list of these. `count` is the number of files of a published pattern. Raises
    `UsageError` if there are no shards or folders with and without a manifest are mixed, `ManifestError` if a manifest
    is damaged, `MergeError` if data folders are incompatible.
    """
    paths = [path for part in _parts(data) for path in _resolve(part, split, count)]
    folders = [path for path in paths if not path.endswith(SUFFIX)]
    if not paths:
        raise UsageError(f"{data!r} contains no shards: no {manifest.NAME} and no *{SUFFIX} file")
    if not folders:
        return DataSet(filesystem.folder_of(paths[0]), paths, None)
    if len(folders) < len(paths):
        raise UsageError(f"{data!r} mixes data folders such as {folders[0]!r} with shards; give either")
    several = len(folders) > 1
    if several:
        folders = list(map(merging.absolute, folders))
    merged = merging.merge([(f, manifest.load(f)) for f in folders]) if several else manifest.load(folders[0])
    if split is not None and split not in merged.splits():
        raise UsageError(f"{data!r} has no split {split!r}; it has {', '.join(merged.splits()) or 'none'}")
    return DataSet(folders[0], list(merged.located(folders[0], split)), merged, several)


def data_folders(data: str) -> list[str]:
    """Resolve a folder, a pattern or a list of these to data folders. Raises `UsageError` for anything else."""
    paths = [path for part in _parts(data) for path in _resolve(part, None, None)]
    if not paths or any(path.endswith(SUFFIX) for path in paths):
        raise UsageError(f"{data!r} is not a data folder with a {manifest.NAME}, nor a pattern or list of such folders")
    return paths


def _parts(data: str) -> list[str]:
    return [part for part in data.split(",") if part] if "," in data and not filesystem.exists(data) else [data]


def _resolve(data: str, split: str | None, count: int | None) -> list[str]:
    """Return the data folders with a manifest that a part of DATA matches, or else its shards."""
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
    """Return the data folder of a folder or a manifest; empty if there is no manifest."""
    folder = path.removesuffix(f"/{manifest.NAME}")
    return folder if filesystem.exists(filesystem.join(folder, manifest.NAME)) else ""
