"""Outliers among shards: a robust distance from the median, per quantity."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from dataclasses import dataclass

from shards.dataset.sums import Sums

FAR = 6.0
"""A shard is an outlier if it is more than this number of deviations from the median."""

_MIN_SHARDS = 5
"""Fewer shards have no meaningful median."""


@dataclass(frozen=True)
class Outlier:
    """A shard with an unusual value of one quantity, and the median of all shards."""

    shard: str
    quantity: str
    value: float
    median: float


def outliers(sums: Sums) -> list[Outlier]:
    """Return the shards far from the median in some quantity, the farthest first.

    Only the shards with the smallest and the largest values of each quantity are known by name.
    """
    ranked: list[tuple[float, Outlier]] = []
    for quantity, counted in sums.rates.items():
        if counted.total() < _MIN_SHARDS:
            continue
        middle = median(counted)
        distances = Counter()
        for value, count in counted.items():
            distances[abs(value - middle)] += count
        # 1.4826 scales the median deviation to a standard deviation; the lower bounds suppress negligible differences.
        spread = max(1.4826 * median(distances), 0.02 * abs(middle), 0.005)
        for value, shard in sums.ends[quantity]:
            if abs(value - middle) > FAR * spread:
                ranked.append((abs(value - middle) / spread, Outlier(shard, quantity, value, middle)))
    return [outlier for _, outlier in sorted(ranked, key=lambda pair: (-pair[0], pair[1].shard))]


def median(counted: Counter[float]) -> float:
    """Return the median of a multiset of values."""
    ordered = sorted(counted.items())
    ends = list(itertools.accumulate(count for _, count in ordered))
    low, high = (ordered[bisect.bisect_right(ends, rank)][0] for rank in ((ends[-1] - 1) // 2, ends[-1] // 2))
    return (low + high) / 2
