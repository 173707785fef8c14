"""What a person may give as DATA: a data folder, its manifest, one shard, or a pattern of shards.

Shards of the published system have no manifest; a folder or a pattern of them is read all the same.
"""

from __future__ import annotations

import glob
import string
from dataclasses import dataclass

from shards import filesystem, manifest
from shards.errors import UsageError
from shards.manifest import Manifest

SUFFIX = ".tfrecord"


@dataclass(frozen=True)
class DataSet:
    """The shard files that DATA means, in order, their folder, and the manifest if there is one."""

    folder: str
    shards: list[str]
    manifest: Manifest | None


def open_data(data: str, split: str | None = None, count: int | None = None) -> DataSet:
    """The data set behind `data`: a folder, a manifest, a shard, a glob, or a published pattern with `{:05d}`.

    `count` is the number of files of a published pattern. Raises `UsageError` if nothing is there, `ManifestError` if
    the manifest is damaged.
    """
    if data.endswith(f"/{manifest.NAME}"):
        data = data.removesuffix(f"/{manifest.NAME}")
    if filesystem.exists(filesystem.join(data, manifest.NAME)):
        held = manifest.load(data)
        if split is not None and split not in held.splits():
            raise UsageError(f"{data!r} has no split {split!r}; it has {', '.join(held.splits()) or 'none'}")
        return DataSet(data, [filesystem.join(data, s.name) for s in held.shards(split)], held)
    found = _files(data, split, count)
    if not found:
        raise UsageError(f"{data!r} holds no shards: no {manifest.NAME} and no *{SUFFIX} file")
    return DataSet(filesystem.folder_of(found[0]), found, None)


def _files(data: str, split: str | None, count: int | None) -> list[str]:
    if any(field is not None for _, field, _, _ in string.Formatter().parse(data)):
        paths = [data.format(i) for i in range(count or 0)]
        return [path for path in paths if filesystem.exists(path)]
    if any(mark in data for mark in "*?["):
        return sorted(glob.glob(data))  # noqa: PTH207 - a pattern may be absolute
    if data.endswith(SUFFIX):
        return [data] if filesystem.exists(data) else []
    files = filesystem.list_files(data, SUFFIX)
    return [f for f in files if split is None or f.rpartition("/")[2].startswith(split)]
