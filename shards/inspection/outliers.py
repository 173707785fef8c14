"""Which shards are unlike the others: a robust distance from the median, per quantity."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from dataclasses import dataclass

from shards.dataset.sums import Sums

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


def outliers(sums: Sums) -> list[Outlier]:
    """The shards that are far from the median in some quantity, the farthest first.

    Of each quantity only the shards with the smallest and the largest values can be named.
    """
    ranked: list[tuple[float, Outlier]] = []
    for quantity, counted in sums.rates.items():
        if counted.total() < _FEWEST_SHARDS:
            continue
        middle = median(counted)
        distances = Counter()
        for value, count in counted.items():
            distances[abs(value - middle)] += count
        # 1.4826 turns the median deviation into a normal one; the floor keeps nearly equal shards from standing out.
        spread = max(1.4826 * median(distances), 0.02 * abs(middle), 0.005)
        for value, shard in sums.ends[quantity]:
            if abs(value - middle) > FAR * spread:
                ranked.append((abs(value - middle) / spread, Outlier(shard, quantity, value, middle)))
    return [outlier for _, outlier in sorted(ranked, key=lambda pair: (-pair[0], pair[1].shard))]


def median(counted: Counter[float]) -> float:
    """The median of values of which each is there so many times."""
    ordered = sorted(counted.items())
    ends = list(itertools.accumulate(count for _, count in ordered))
    low, high = (ordered[bisect.bisect_right(ends, rank)][0] for rank in ((ends[-1] - 1) // 2, ends[-1] // 2))
    return (low + high) / 2
