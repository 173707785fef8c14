"""Merge data folders: a manifest that refers to their shards in place, without copies.

Segments per example, the vocabulary and the config must be equal in all folders. Text corpora and rules for whole
examples may differ; the sidecar of every shard records its own.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from shards.dataset import manifest
from shards.dataset.manifest import Manifest, generation_folder
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError
from shards.storage.stored_config import CONFIG_NAME
from shards.tokenizer_file import TOKENIZER_NAME

_COPIED = (TOKENIZER_NAME, CONFIG_NAME)
_COMPARED = {
    "segments_per_example": "segments per example",
    "tokenizer": "the vocabulary with the digest",
    "config": "the config with the digest",
}


class MergeError(UserError):
    """Data folders are incompatible; the message names two of them and the difference."""


def merge(folders: Sequence[tuple[str, Manifest]]) -> Manifest:
    """Return one manifest of all generations of some data folders, in order; each keeps its folder and number.

    Raises `MergeError` if a folder occurs twice or two folders are incompatible.
    """
    (first, head), *others = folders
    for folder, other in others:
        for name, title in _COMPARED.items():
            expected, actual = getattr(head, name), getattr(other, name)
            if expected != actual:
                raise MergeError(
                    f"{folder!r} has {title} {_short(actual)} and {first!r} {_short(expected)}; such folders cannot be"
                    " merged"
                )
    placed = [
        dataclasses.replace(generation, folder=normal(generation_folder(folder, generation)))
        for folder, committed in folders
        for generation in committed.generations
    ]
    seen: set[tuple[str, str, int]] = set()
    for generation in placed:
        key = (generation.folder, generation.split, generation.number)
        if key in seen:
            raise MergeError(f"the data folder {generation.folder!r} is named twice; name it once")
        seen.add(key)
    return dataclasses.replace(head, generations=placed)


def write(out: str, folders: Sequence[str]) -> Manifest:
    """Write the merged manifest of some data folders into the folder `out`, with their vocabulary and config.

    Local folders are stored relative to a local `out`, so that all can be moved together. Raises `MergeError` as
    `merge` does, and if `out` has its own shards; `UsageError` if `out` is in a bucket and a folder is not.
    """
    merged = merge([(absolute(folder), manifest.load(folder)) for folder in folders])
    placed = [dataclasses.replace(g, folder=_relative_to(out, g.folder)) for g in merged.generations]
    merged = dataclasses.replace(merged, generations=placed)
    committed = manifest.find(out)
    if committed and [g for g in committed.generations if not g.folder]:
        raise MergeError(f"{out!r} has its own shards; merge into another folder")
    for name in _COPIED:
        content = filesystem.read_existing(filesystem.join(folders[0], name))
        if content is not None:
            filesystem.write_bytes(filesystem.join(out, name), content)
    manifest.save(out, merged)
    return merged


def absolute(folder: str) -> str:
    """Return a folder as an absolute path without a trailing slash."""
    return folder.rstrip("/") if filesystem.is_remote(folder) else os.path.abspath(folder)  # noqa: PTH100 - "..", too


def normal(folder: str) -> str:
    """Return a folder's path without `..` and a trailing slash."""
    return folder.rstrip("/") if filesystem.is_remote(folder) else os.path.normpath(folder)


def _relative_to(out: str, folder: str) -> str:
    if filesystem.is_remote(folder):
        return folder
    if filesystem.is_remote(out):
        raise UsageError(f"{out!r} is in a bucket and cannot refer to {folder!r}; merge into a folder on this machine")
    return os.path.relpath(folder, out)


def _short(value: object) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 16 else str(value)
