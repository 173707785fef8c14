"""The order of records as a function of (seed, epoch, position).

Every epoch shuffles the shards, and then the records of each window of shards. The only state of a stream is its
position, an integer that any number of hosts can share and any restart can resume from.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from shards.storage.randomness import generator

_MIXTURE_BLOCK = 4096
"""Number of positions over which the shares of a mixture are exact; also the denominator of the smallest weight."""


@dataclass(frozen=True)
class Place:
    """The record at a position of a stream: epoch, shard, and record number in the shard."""

    epoch: int
    shard: int
    record: int


class Order:
    """The endless stream of the records of one data set.

    `counts` are the records per shard, `window` is the number of shards whose records are shuffled together. Without a
    seed the records are in the order of the shards in every epoch.
    """

    def __init__(self, counts: Sequence[int] | np.ndarray, seed: int | None, window: int, name: str = "order"):
        self.counts = np.asarray(counts, np.int64)
        self.records = int(self.counts.sum())
        self._key = self.counts.tobytes()
        self._seed, self._window, self._name = seed, window, name
        if self.records < 1 or window < 1:
            raise ValueError(f"an order needs records and a window, not {self.records} and {window}")

    def locate(self, position: int) -> Place:
        """Return the record at a position of the stream."""
        epoch, offset = divmod(position, self.records)
        shards, starts = _epoch_layout(self._key, self._seed, self._name, epoch)
        if self._seed is not None:
            ends = np.append(starts[self._window :: self._window], self.records)
            block = int(np.searchsorted(ends, offset, side="right"))
            first = int(starts[block * self._window])
            size = int(ends[block]) - first
            offset = first + int(_window_permutation(self._seed, self._name, epoch, block, size)[offset - first])
        # The last shard that starts at this offset: earlier ones with the same start are empty.
        slot = int(np.searchsorted(starts, offset, side="right")) - 1
        return Place(epoch, int(shards[slot]), offset - int(starts[slot]))


@lru_cache(maxsize=8)
def _epoch_layout(
    counts: bytes, seed: int | None, name: str, epoch: int
) -> tuple[Int64[np.ndarray, "shards"], Int64[np.ndarray, "shards"]]:
    """Return the shards of an epoch in their order, and the offset in the epoch where each starts."""
    sizes = np.frombuffer(counts, np.int64)
    shards = np.arange(sizes.size) if seed is None else generator(seed, name, "shards", epoch).permutation(sizes.size)
    ends = np.cumsum(sizes[shards])
    return shards, ends - sizes[shards]


@lru_cache(maxsize=16)
def _window_permutation(seed: int, name: str, epoch: int, block: int, size: int) -> Int64[np.ndarray, "records"]:
    return generator(seed, name, "records", epoch, block).permutation(size)


class Mixture:
    """A mixture of streams by weight: maps a position to a stream and a position in that stream.

    The shares are exact over every 4096 positions, up to one record.
    """

    def __init__(self, weights: Sequence[float], seed: int):
        shares = [Fraction(weight).limit_denominator(10**9) for weight in weights]
        if any(share * _MIXTURE_BLOCK < sum(shares) for share in shares):
            raise ValueError(f"each weight must be at least 1/{_MIXTURE_BLOCK} of their sum, not {list(weights)}")
        self._shares = [share / sum(shares) for share in shares]
        self._seed = seed

    def locate(self, position: int) -> tuple[int, int]:
        """Return (stream, position in that stream)."""
        if len(self._shares) == 1:
            return 0, position
        block, offset = divmod(position, _MIXTURE_BLOCK)
        before = self._consumed_by_blocks(block)
        stream, rank = self._slots(block)
        return int(stream[offset]), before[stream[offset]] + int(rank[offset])

    def consumed(self, position: int) -> list[int]:
        """Return the number of records consumed from each stream before a position."""
        if len(self._shares) == 1:
            return [position]
        block, offset = divmod(position, _MIXTURE_BLOCK)
        inside = np.bincount(self._slots(block)[0][:offset], minlength=len(self._shares))
        return [before + int(n) for before, n in zip(self._consumed_by_blocks(block), inside, strict=True)]

    def _consumed_by_blocks(self, blocks: int) -> list[int]:
        """Return the number of records consumed from each stream by whole blocks.

        These are differences of rounded cumulative sums, so that they add up exactly.
        """
        sums = [sum(self._shares[: i + 1]) * blocks * _MIXTURE_BLOCK for i in range(len(self._shares))]
        floors = [0, *(int(value) for value in sums)]
        return [b - a for a, b in itertools.pairwise(floors)]

    def _slots(self, block: int) -> tuple[Int64[np.ndarray, "positions"], Int64[np.ndarray, "positions"]]:
        """Return the stream of each position of a block, and its rank among the positions of that stream."""
        before, after = self._consumed_by_blocks(block), self._consumed_by_blocks(block + 1)
        return _shuffled_slots(tuple(b - a for a, b in zip(before, after, strict=True)), self._seed, block)


@lru_cache(maxsize=8)
def _shuffled_slots(
    counts: tuple[int, ...], seed: int, block: int
) -> tuple[Int64[np.ndarray, "positions"], Int64[np.ndarray, "positions"]]:
    stream = generator(seed, "mixture", block).permutation(np.repeat(np.arange(len(counts)), counts))
    rank = np.empty_like(stream)
    for i in range(len(counts)):
        is_own = stream == i
        rank[is_own] = np.arange(is_own.sum())
    return stream, rank
