"""Pack the segments of many videos, by reference, into examples of equal size.

A long video fills whole examples alone; its remaining segments wait in a buffer and share an example with those of
other videos (docs/spec/ingest.md 16). Segments of a video stay adjacent and in order, and none is lost: segments that
do not fill an example are returned and carried into the next generation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

BUFFER_VIDEOS = 160
FROM_FRONT = 0.8


@dataclass(frozen=True)
class Run:
    """Consecutive segments `[first, stop)` of one video."""

    video_id: str
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


Group = list[Run]
"""The runs of one example, in order."""


def pack(
    runs: Iterable[Run],
    size: int,
    uniform: Callable[[], float],
    *,
    buffer: int = BUFFER_VIDEOS,
    from_front: float = FROM_FRONT,
) -> tuple[list[Group], list[Run]]:
    """Return groups of exactly `size` segments, and the runs that remain because they do not fill another group.

    `runs` are in order, those carried over from an earlier generation first. `uniform` returns draws in [0, 1): one per
    cut of a run (from its front or its back), one per choice of the run that completes a group.
    """

    def cut(run: Run, count: int) -> tuple[Run, Run]:
        if uniform() < from_front:
            middle = run.first + count
            return Run(run.video_id, run.first, middle), Run(run.video_id, middle, run.stop)
        middle = run.stop - count
        return Run(run.video_id, middle, run.stop), Run(run.video_id, run.first, middle)

    def pop() -> Group | None:
        by_length = sorted(range(len(waiting)), key=lambda i: -len(waiting[i]))
        chosen, free = [by_length[0]], size - len(waiting[by_length[0]])
        for i in by_length[1:]:
            if len(waiting[i]) <= free:
                chosen.append(i)
                free -= len(waiting[i])
        others = [i for i in range(len(waiting)) if i not in set(chosen)]
        if free and not others:
            return None
        group = [waiting[i] for i in chosen]
        rest = {}
        if free:
            last = others[int(uniform() * len(others))]
            piece, rest[last] = cut(waiting[last], free)
            group.append(piece)
        waiting[:] = [rest.get(i, waiting[i]) for i in others]
        return group

    groups: list[Group] = []
    waiting: list[Run] = []
    for run in runs:
        while len(run) >= size:
            piece, run = cut(run, size)
            groups.append([piece])
        if len(run):
            waiting.append(run)
        while len(waiting) > buffer and (group := pop()):
            groups.append(group)
    while waiting and (group := pop()):
        groups.append(group)
    return groups, waiting


def plan_shards(groups: list[Group], sizes: list[int], shard_bytes: int, rng: np.random.Generator) -> list[list[Group]]:
    """Distribute the groups in random order over ceil(total size / shard_bytes) shards of equal numbers of examples.

    `sizes` are the expected bytes of the groups.
    """
    if not groups:
        return []
    count = min(max(math.ceil(sum(sizes) / shard_bytes), 1), len(groups))
    order = rng.permutation(len(groups)).tolist()
    bounds = [len(groups) * i // count for i in range(count + 1)]
    return [[groups[k] for k in order[a:b]] for a, b in itertools.pairwise(bounds)]
