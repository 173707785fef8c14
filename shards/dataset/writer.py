"""Write a shard: a TFRecord file, the index of its records, and a sidecar, each committed atomically.

The sidecar is written last and names the plan of the shard, so a shard with a sidecar of the same plan is complete and
is not written again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from shards.dataset import sidecar
from shards.dataset.manifest import Shard, index_path, stats_path
from shards.dataset.packing import Group
from shards.dataset.video_store import VideoStore, VideoTable
from shards.records.pretraining import Example, arrange
from shards.records.segments import Segment, VideoText
from shards.records.tfrecord import frame
from shards.storage import filesystem
from shards.storage.errors import StorageError


class Sums(Protocol):
    """Collects the statistics of a shard while it is written."""

    def result(self) -> dict[str, Any]:
        """Return JSON-able sums; called after the last record."""
        ...


def write_shard(
    data: str,
    name: str,
    plan: str,
    groups: Iterable[Group],
    examples: Iterable[Example],
    texts: Iterable[list[tuple[str, int]]] = (),
    judged: Sequence[dict[str, Any]] = (),
) -> tuple[Shard, dict[str, Any]]:
    """Write a shard, its index and its sidecar into the folder `data`; return the shard and the sidecar's content.

    `groups` are the runs of each example, `texts` the references of its texts, if any. `judged` are the outcomes of all
    groups that the visual filter evaluated, including those without an example.
    """
    collected = sidecar.Collector(judged=list(judged))

    def payloads() -> Iterator[bytes]:
        remaining_texts = iter(texts)
        for group, example in zip(groups, examples, strict=True):
            yield example.serialize()
            collected.add(group, example, next(remaining_texts, []))

    return write_records(data, name, plan, payloads(), collected)


def write_records(
    data: str, name: str, plan: str, payloads: Iterable[bytes], collected: Sums
) -> tuple[Shard, dict[str, Any]]:
    """Write a shard of any records, its index, and a sidecar with the final sums of `collected`.

    Returns the shard and the sidecar's content.
    """
    path = filesystem.join(data, name)
    offsets, sha256 = [0], hashlib.sha256()
    with filesystem.put(path) as file:
        for payload in payloads:
            framed = frame(payload)
            file.write(framed)
            sha256.update(framed)
            offsets.append(offsets[-1] + len(framed))
    filesystem.put_bytes(index_path(path), np.array(offsets, "<u8").tobytes())
    shard = Shard(name, len(offsets) - 1, offsets[-1], sha256.hexdigest())
    content = {"plan": plan, "shard": vars(shard)} | collected.result()
    filesystem.put_bytes(stats_path(path), (json.dumps(content, ensure_ascii=False) + "\n").encode())
    return shard, content


def finished_shard(data: str, name: str, plan: str) -> tuple[Shard, dict[str, Any]] | None:
    """Return the shard and its sidecar's content if an earlier run wrote it from the same plan, else `None`."""
    path = filesystem.join(data, name)
    sidecar_bytes = filesystem.read_existing(stats_path(path))
    if sidecar_bytes is None:
        return None
    try:
        content = json.loads(sidecar_bytes)
        shard, written = Shard(**content["shard"]), content["plan"]
        return (shard, content) if written == plan and filesystem.size(path) == shard.bytes else None
    except (StorageError, ValueError, KeyError, TypeError):
        return None


def examples_of(
    store: VideoStore,
    groups: Iterable[Group],
    tables: Mapping[str, VideoTable],
    texts: Iterator[list[np.ndarray]] | None = None,
) -> Iterable[Example]:
    """Yield the examples of the groups, read from the per-video store one group at a time, with their `texts`."""
    for group in groups:
        runs: list[tuple[VideoText, list[Segment]]] = []
        for run in group:
            table = tables[run.video_id]
            runs.append((table.text, store.read(table, run.first, run.stop)))
        yield arrange(runs, next(texts) if texts else [])
