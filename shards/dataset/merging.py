"""Several data folders as one: a manifest that refers to their shards where they are, and copies none.

What the reader relies on must be the same everywhere: segments per example, the vocabulary, and the config that the
segments were made with. Corpora of text and rules for whole examples may differ; every shard's sidecar says its own.
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
    """Data folders do not belong together; the message names two and what differs."""


def merge(folders: Sequence[tuple[str, Manifest]]) -> Manifest:
    """One manifest of all generations of some data folders, in their order; each keeps its folder and its number.

    Raises `MergeError` if a folder occurs twice or two differ in what must be the same.
    """
    (first, head), *others = folders
    for folder, other in others:
        for name, title in _COMPARED.items():
            ours, theirs = getattr(head, name), getattr(other, name)
            if ours != theirs:
                raise MergeError(
                    f"{folder!r} has {title} {_short(theirs)} and {first!r} {_short(ours)}; they cannot be read as one"
                )
    placed = [
        dataclasses.replace(generation, folder=normal(generation_folder(folder, generation)))
        for folder, committed in folders
        for generation in committed.generations
    ]
    seen: set[tuple[str, str, int]] = set()
    for generation in placed:
        named = (generation.folder, generation.split, generation.number)
        if named in seen:
            raise MergeError(f"the data folder {generation.folder!r} is named twice; name it once")
        seen.add(named)
    return dataclasses.replace(head, generations=placed)


def write(out: str, folders: Sequence[str]) -> Manifest:
    """Write the merged manifest of some data folders into the folder `out`, with their vocabulary and config.

    Local folders are named relative to a local `out`, so that all can be moved together. Raises `MergeError` as `merge`
    does, and if `out` has shards of its own or is in a bucket and a folder is not.
    """
    merged = merge([(absolute(folder), manifest.load(folder)) for folder in folders])
    placed = [dataclasses.replace(g, folder=_seen_from(out, g.folder)) for g in merged.generations]
    merged = dataclasses.replace(merged, generations=placed)
    committed = manifest.find(out)
    if committed and [g for g in committed.generations if not g.folder]:
        raise MergeError(f"{out!r} has shards of its own; merge into another folder")
    for name in _COPIED:
        content = filesystem.read_existing(filesystem.join(folders[0], name))
        if content is not None:
            filesystem.write_bytes(filesystem.join(out, name), content)
    manifest.save(out, merged)
    return merged


def absolute(folder: str) -> str:
    """One spelling of a folder, wherever the process works."""
    return folder.rstrip("/") if filesystem.is_remote(folder) else os.path.abspath(folder)  # noqa: PTH100 - "..", too


def normal(folder: str) -> str:
    """A folder's path without `..` and a slash at the end."""
    return folder.rstrip("/") if filesystem.is_remote(folder) else os.path.normpath(folder)


def _seen_from(out: str, folder: str) -> str:
    if filesystem.is_remote(folder):
        return folder
    if filesystem.is_remote(out):
        raise UsageError(f"{out!r} is in a bucket and cannot refer to {folder!r}; merge into a folder on this machine")
    return os.path.relpath(folder, out)


def _short(value: object) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 16 else str(value)
