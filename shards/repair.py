"""Write damaged shards again from the segments that were kept.

A shard's sidecar says which segments it was made of and the manifest says what its bytes were, so one that comes out
with the same digest is the same shard.
"""

from __future__ import annotations

from collections.abc import Iterator

from shards.dataset import DataSet
from shards.errors import UserError
from shards.sidecar import read_contents
from shards.text_store import TextStore
from shards.video_store import VideoStore
from shards.writer import examples_of, write_shard


class RepairError(UserError):
    """A shard cannot be written again; the message says what is missing."""


def repair(data: DataSet, damaged: set[str]) -> Iterator[str]:
    """Yields the name of every shard of `damaged` after writing it again.

    Raises `RepairError` if what is needed is gone or gives other bytes, `SidecarError` if nobody knows what it was, and
    `VideoStoreError` if segments were not kept.
    """
    if data.manifest is None:
        raise RepairError(f"{data.folder!r} has no manifest, so nobody knows what its shards were; nothing is repaired")
    store = VideoStore(data.folder)
    for shard in data.manifest.shards():
        if shard.name in damaged:
            plan, groups, texts, judged = read_contents(data.folder, shard.name)
            read = TextStore(data.folder).read(texts) if texts else None
            tables = {run.video_id: store.get(run.video_id) for group in groups for run in group}
            examples = examples_of(store, groups, tables, read)
            written, _ = write_shard(data.folder, shard.name, plan, groups, examples, texts, judged)
            if written != shard:
                raise RepairError(
                    f"{shard.name} comes out differently from what the manifest says; the segments changed"
                )
            yield shard.name
