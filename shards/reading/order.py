"""The order of records as a function of (seed, epoch, position).

Every epoch the shards are shuffled, and then the records of each window of shards. Nothing is remembered: where a
stream stands is one integer, which any number of hosts can share out and any restart can continue from.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from shards.storage.randomness import generator

_MIXTURE_BLOCK = 4096
"""Positions over which a mixture keeps its proportions exactly; also the smallest weight's denominator."""


@dataclass(frozen=True)
class Place:
    """A record in its place in the stream: the epoch, its shard and its number there."""

    epoch: int
    shard: int
    record: int


class Order:
    """The endless stream of the records of one data set.

    `counts` are the records per shard, `window` the number of shards whose records are shuffled together. Without a
    seed the records come in the order of the shards, the same in every epoch.
    """

    def __init__(self, counts: Sequence[int] | np.ndarray, seed: int | None, window: int, name: str = "order"):
        self.counts = np.asarray(counts, np.int64)
        self.records = int(self.counts.sum())
        self._key = self.counts.tobytes()
        self._seed, self._window, self._name = seed, window, name
        if self.records < 1 or window < 1:
            raise ValueError(f"an order needs records and a window, not {self.records} and {window}")

    def locate(self, position: int) -> Place:
        """The record at a position of the stream."""
        epoch, left = divmod(position, self.records)
        shards, starts = _epoch_layout(self._key, self._seed, self._name, epoch)
        if self._seed is not None:
            ends = np.append(starts[self._window :: self._window], self.records)
            block = int(np.searchsorted(ends, left, side="right"))
            first = int(starts[block * self._window])
            size = int(ends[block]) - first
            left = first + int(_window_permutation(self._seed, self._name, epoch, block, size)[left - first])
        # The last shard that starts here: the ones before it at the same place are empty.
        slot = int(np.searchsorted(starts, left, side="right")) - 1
        return Place(epoch, int(shards[slot]), left - int(starts[slot]))


@lru_cache(maxsize=8)
def _epoch_layout(counts: bytes, seed: int | None, name: str, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The shards of an epoch in their order, and the stream position where each starts."""
    sizes = np.frombuffer(counts, np.int64)
    shards = np.arange(sizes.size) if seed is None else generator(seed, name, "shards", epoch).permutation(sizes.size)
    ends = np.cumsum(sizes[shards])
    return shards, ends - sizes[shards]


@lru_cache(maxsize=16)
def _window_permutation(seed: int, name: str, epoch: int, block: int, size: int) -> np.ndarray:
    return generator(seed, name, "records", epoch, block).permutation(size)


class Mixture:
    """Several streams mixed by weight: which stream a position takes from, and at which of its own positions.

    The shares are exact over every 4096 positions, up to one record.
    """

    def __init__(self, weights: Sequence[float], seed: int):
        shares = [Fraction(weight).limit_denominator(10**9) for weight in weights]
        if any(share * _MIXTURE_BLOCK < sum(shares) for share in shares):
            raise ValueError(f"each weight must be at least 1/{_MIXTURE_BLOCK} of their sum, not {list(weights)}")
        self._shares = [share / sum(shares) for share in shares]
        self._seed = seed

    def locate(self, position: int) -> tuple[int, int]:
        """(stream, position in that stream)."""
        if len(self._shares) == 1:
            return 0, position
        block, left = divmod(position, _MIXTURE_BLOCK)
        before = self._taken(block)
        stream, rank = self._slots(block)
        return int(stream[left]), before[stream[left]] + int(rank[left])

    def taken(self, position: int) -> list[int]:
        """How many records each stream has given before a position."""
        if len(self._shares) == 1:
            return [position]
        block, left = divmod(position, _MIXTURE_BLOCK)
        inside = np.bincount(self._slots(block)[0][:left], minlength=len(self._shares))
        return [before + int(n) for before, n in zip(self._taken(block), inside, strict=True)]

    def _taken(self, blocks: int) -> list[int]:
        """Records each stream has given after whole blocks; differences of rounded sums, so that all are exact."""
        sums = [sum(self._shares[: i + 1]) * blocks * _MIXTURE_BLOCK for i in range(len(self._shares))]
        floors = [0, *(int(value) for value in sums)]
        return [b - a for a, b in itertools.pairwise(floors)]

    def _slots(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The stream of each position of a block, and its rank among that stream's."""
        counts = [b - a for a, b in zip(self._taken(block), self._taken(block + 1), strict=True)]
        return _shuffled_slots(tuple(counts), self._seed, block)


@lru_cache(maxsize=8)
def _shuffled_slots(counts: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    stream = generator(seed, "mixture", block).permutation(np.repeat(np.arange(len(counts)), counts))
    rank = np.empty_like(stream)
    for i in range(len(counts)):
        mine = stream == i
        rank[mine] = np.arange(mine.sum())
    return stream, rank
