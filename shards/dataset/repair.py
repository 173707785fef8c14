"""Rewrite damaged shards from the segments in the per-video store.

The sidecar of a shard lists its segments and the manifest has its SHA-256, so a rewritten shard with the same digest is
identical.
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
    """A shard cannot be rewritten; the message names what is missing."""


def repair(data: DataSet, damaged: set[str]) -> Iterator[str]:
    """Rewrite the shards with the paths `damaged` and yield the path of each when it is complete.

    Raises `RepairError` without a manifest or if the bytes differ, `SidecarError` if a sidecar is damaged, and
    `VideoStoreError` if segments are no longer in the store.
    """
    if data.manifest is None:
        raise RepairError(f"{data.folder!r} has no manifest; only shards of a data folder can be repaired")
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
                raise RepairError(f"the rewritten {path} differs from the manifest; its segments have changed")
            yield path
