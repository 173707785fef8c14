"""Write damaged shards again from the segments that were kept.

A shard's sidecar says which segments it was made of and the manifest says what its bytes were, so one that comes out
with the same digest is the same shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shards import filesystem
from shards.dataset import DataSet
from shards.errors import UserError
from shards.generations import TextRef
from shards.manifest import Shard, stats_path
from shards.packing import Group, Run
from shards.segments import SegmentStore, segments_folder
from shards.text_store import TextStore
from shards.writer import examples_of, write_shard


class RepairError(UserError):
    """A shard cannot be written again; the message says what is missing."""


def repair(data: DataSet, damaged: set[str]) -> Iterator[str]:
    """Yields the name of every shard of `damaged` after writing it again.

    Raises `RepairError` if what is needed is gone or gives other bytes, `SegmentStoreError` if segments were not kept.
    """
    if data.manifest is None:
        raise RepairError(f"{data.folder!r} has no manifest, so nobody knows what its shards were; nothing is repaired")
    store = SegmentStore(segments_folder(data.folder))
    for shard in data.manifest.shards():
        if shard.name in damaged:
            plan, groups, texts, judged = _planned(data.folder, shard)
            read = TextStore(data.folder).read(texts) if texts else None
            examples = examples_of(store, groups, read)
            written = write_shard(data.folder, shard.name, plan, groups, examples, texts, judged)
            if written != shard:
                raise RepairError(
                    f"{shard.name} comes out differently from what the manifest says; the segments changed"
                )
            yield shard.name


def _planned(folder: str, shard: Shard) -> tuple[str, list[Group], list[list[TextRef]], list[dict[str, Any]]]:
    path = stats_path(filesystem.join(folder, shard.name))
    try:
        sidecar = json.loads(filesystem.read_bytes(path))
        texts = [[(source, number) for source, number in refs] for refs in sidecar.get("texts", [])]
        groups = [[Run(*run) for run in group] for group in sidecar["runs"]]
        return sidecar["plan"], groups, texts, sidecar.get("judged", [])
    except (OSError, ValueError, KeyError, TypeError):
        raise RepairError(f"{path} does not say any more what {shard.name} was made of") from None
