"""Write damaged shards again from the segments that were kept.

A shard's sidecar says which segments it was made of and the manifest says what its bytes were, so one that comes out
with the same digest is the same shard.
"""

from __future__ import annotations

from collections.abc import Iterator

from shards.dataset.location import DataSet
from shards.dataset.sidecar import read_contents
from shards.dataset.text_store import TextStore
from shards.dataset.video_store import VideoStore
from shards.dataset.writer import examples_of, write_shard
from shards.storage import filesystem
from shards.storage.errors import UserError


class RepairError(UserError):
    """A shard cannot be written again; the message says what is missing."""


def repair(data: DataSet, damaged: set[str]) -> Iterator[str]:
    """Yields the path of every shard of `damaged`, which are paths, after writing it again.

    Raises `RepairError` if what is needed is gone or gives other bytes, `SidecarError` if nobody knows what it was, and
    `VideoStoreError` if segments were not kept.
    """
    if data.manifest is None:
        raise RepairError(f"{data.folder!r} has no manifest, so nobody knows what its shards were; nothing is repaired")
    for path, shard in data.claims.items():
        if path in damaged:
            folder = filesystem.folder_of(path)
            store = VideoStore(folder)
            plan, groups, texts, judged = read_contents(folder, shard.name)
            read = TextStore(folder).read(texts) if texts else None
            tables = {run.video_id: store.get(run.video_id) for group in groups for run in group}
            examples = examples_of(store, groups, tables, read)
            written, _ = write_shard(folder, shard.name, plan, groups, examples, texts, judged)
            if written != shard:
                raise RepairError(f"{path} comes out differently from what the manifest says; the segments changed")
            yield path
