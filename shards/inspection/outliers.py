"""Which shards are unlike the others: a robust distance from the median, per quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shards.inspection.stats import ShardSums

FAR = 6.0
"""A shard is an outlier if it is more than so many deviations from the median."""

_FEWEST_SHARDS = 5
"""Fewer shards have no usual value."""


@dataclass(frozen=True)
class Outlier:
    """One shard that differs: in what, its value, and the median of all shards."""

    shard: str
    quantity: str
    value: float
    median: float


def rates(shard: ShardSums) -> dict[str, float]:
    """What is compared between shards, each per segment (bytes, tokens, shares) or per minute (words)."""
    segments = shard.counts.get("segments", 0)
    if not segments:
        return {}
    return {
        "bytes per segment": shard.bytes / segments,
        "tokens per segment": shard.counts["tokens"] / segments,
        "words per minute": 60 * shard.counts["words"] / shard.seconds if shard.seconds else 0.0,
        "silent share": shard.counts["silent"] / segments,
        "near-black share": shard.counts["near_black"] / segments,
    }


def outliers(shards: Sequence[ShardSums]) -> list[Outlier]:
    """The shards that are far from the median in some quantity, the farthest first."""
    rated = [(shard.name, rates(shard)) for shard in shards]
    rated = [(name, values) for name, values in rated if values]
    if len(rated) < _FEWEST_SHARDS:
        return []
    found: list[tuple[float, Outlier]] = []
    for quantity in rated[0][1]:
        values = np.array([held[quantity] for _, held in rated])
        median = float(np.median(values))
        # 1.4826 turns the median deviation into a normal one; the floor keeps nearly equal shards from standing out.
        spread = max(1.4826 * float(np.median(np.abs(values - median))), 0.02 * abs(median), 0.005)
        for i in np.flatnonzero(np.abs(values - median) > FAR * spread):
            far = abs(float(values[i]) - median) / spread
            found.append((far, Outlier(rated[i][0], quantity, float(values[i]), median)))
    return [outlier for _, outlier in sorted(found, key=lambda pair: (-pair[0], pair[1].shard))]
