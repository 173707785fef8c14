"""Plan examples and shards: pure functions over the tables of videos.

Videos are assigned to the shards of a generation by a hash of their ids, so that a shard can be planned from its own
videos alone. The left-over segments of each shard, fewer than an example, are packed together into the `rest` shards;
segments that remain there wait for the next generation of the split.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shards.dataset.manifest import rest_name, shard_name
from shards.dataset.packing import Group, Run, pack, plan_shards
from shards.dataset.video_store import VideoTable
from shards.storage.randomness import digest, generator

_RECORD_OVERHEAD = 900
"""Estimated bytes of names, digests and framing per segment of a record; only the number of shards depends on it."""

TextRef = tuple[str, int]
"""A source of text and the number of one of its sequences."""


@dataclass(frozen=True)
class Packing:
    """Everything that determines how segments are packed besides the segments."""

    seed: int
    config: str
    segments_per_example: int
    shard_bytes: int
    rules: str = ""


@dataclass(frozen=True)
class Target:
    """The generation to write: split, number, tag of its files, and number of shards.

    The tag depends on the videos, so that concurrent jobs with different videos write different files.
    """

    split: str
    number: int
    tag: str
    shards: int


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its name, its groups, the tables of their videos, and the texts of each group, if any."""

    name: str
    groups: list[Group]
    tables: dict[str, VideoTable]
    texts: list[list[TextRef]] = field(default_factory=list)

    def digest(self, packing: Packing, texts: str = "") -> str:
        """Return the digest of everything that determines the shard: config, rules, every run in order, every text.

        `texts` is the digest of the packed corpora.
        """
        content: list[Any] = [packing.config, packing.rules, texts]
        content += [[[r.video_id, r.first, r.stop] for r in group] for group in self.groups], self.texts
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


LeftOver = tuple[Run, VideoTable]
"""A run of segments that did not fill an example, and the table of its video."""


def shard_count(segment_bytes: int, segments: int, packing: Packing) -> int:
    """Return the number of shards for `segments` segments of `segment_bytes` bytes in total."""
    return max(math.ceil((segment_bytes + segments * _RECORD_OVERHEAD) / packing.shard_bytes), 1)


def shard_of(seed: int, video_id: str, shards: int) -> int:
    """Return the number, below `shards`, of the shard that a video is assigned to."""
    return int.from_bytes(digest(seed, "shard", video_id)[:8], "little") % shards


def plan_shard(
    index: int, tables: Iterable[VideoTable], target: Target, packing: Packing
) -> tuple[ShardPlan, list[LeftOver]]:
    """Pack the videos of one shard; the plan has no groups if they do not fill an example."""
    known = {table.id: table for table in tables}
    order = sorted(known, key=lambda video: digest(packing.seed, "pack", video))
    name = shard_name(target.split, target.number, index, target.shards, target.tag)
    uniform = generator(packing.seed, "pack", name).random
    groups, remainder = pack((Run(v, 0, len(known[v].spans)) for v in order), packing.segments_per_example, uniform)
    shuffled = generator(packing.seed, "shuffle", name).permutation(len(groups))
    return _planned(name, [groups[i] for i in shuffled], known), [(run, known[run.video_id]) for run in remainder]


def plan_rest(
    waiting: Iterable[LeftOver], left_over: Iterable[LeftOver], target: Target, packing: Packing
) -> tuple[list[ShardPlan], list[Run]]:
    """Pack the left-over segments of earlier generations (`waiting`) and of the shards; return plans and remainder."""
    runs: list[Run] = []
    known: dict[str, VideoTable] = {}
    for runs_and_tables in (waiting, left_over):
        listed = list(runs_and_tables)
        known |= {table.id: table for _, table in listed}
        runs += sorted((run for run, _ in listed), key=lambda r: (digest(packing.seed, "pack", r.video_id), r.first))
    name = f"{target.split}-g{target.number:04d}-{target.tag}-rest"
    groups, remainder = pack(runs, packing.segments_per_example, generator(packing.seed, "pack", name).random)
    sizes = [sum(_bytes_of(run, known[run.video_id]) for run in group) for group in groups]
    parts = plan_shards(groups, sizes, packing.shard_bytes, generator(packing.seed, "shuffle", name))
    plans = [
        _planned(rest_name(target.split, target.number, i, len(parts), target.tag), part, known)
        for i, part in enumerate(parts)
    ]
    return plans, remainder


def _planned(name: str, groups: list[Group], known: Mapping[str, VideoTable]) -> ShardPlan:
    return ShardPlan(name, groups, {run.video_id: known[run.video_id] for group in groups for run in group})


def _bytes_of(run: Run, table: VideoTable) -> int:
    return sum(length + _RECORD_OVERHEAD for _, length, _ in table.spans[run.first : run.stop])
