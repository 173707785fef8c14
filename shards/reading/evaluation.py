"""One pass over a split for evaluation: every record once, in order, on all hosts together.

The last batch is filled up with empty rows that a mask tells apart, so that each host has equally many batches of equal
shape and nothing is left out. No TensorFlow and nothing random.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from shards.errors import UserError
from shards.reader import RecordParser
from shards.reading.cache import CacheOptions
from shards.reading.pretraining import Arrays
from shards.reading.questions import fixed
from shards.reading.source import Source
from shards.records.example import RecordError

IS_RECORD = "is_record"
"""The mask `bool [batch]` among the arrays of a batch: false for rows that fill it up."""


class DamagedRecordError(UserError):
    """A record of an evaluation cannot be read; the message names it."""


class Pass:
    """The batches of one split, this host's rows of them."""

    def __init__(
        self,
        data: str,
        split: str | None,
        parser: RecordParser,
        batch_size: int,
        host: int = 0,
        hosts: int = 1,
        cache: CacheOptions | None = None,
    ):
        """`batch_size` is this host's. Raises `UsageError` if there is nothing to read."""
        self._source, self._parser = Source(data, split, cache=cache), parser
        self._size, self._host, self._hosts = batch_size, host, hosts
        self._ends = np.cumsum(self._source.counts)
        self.records = int(self._ends[-1])
        self.counts: dict[str, int] = {}
        """What the parser counted so far."""

    def __iter__(self) -> Iterator[Arrays]:
        """Yields batches with `IS_RECORD`. Raises `DamagedRecordError` for a record that cannot be read."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "evaluation") as pool:
            for start in range(0, self.records, self._size * self._hosts):
                yield self._batch(start + self._host * self._size, pool)

    def _batch(self, first: int, pool: ThreadPoolExecutor) -> Arrays:
        spec = self._parser.spec()
        batch = {name: np.zeros((self._size, *shape), dtype) for name, (shape, dtype) in spec.items()}
        here = min(max(self.records - first, 0), self._size)
        rows = [{name: array[i, ...] for name, array in batch.items()} for i in range(here)]
        for counts in pool.map(self._fill, range(first, first + here), rows):
            for name, count in counts.items():
                self.counts[name] = self.counts.get(name, 0) + count
        return batch | {IS_RECORD: np.arange(self._size) < here}

    def _fill(self, position: int, row: Arrays) -> dict[str, int]:
        shard = int(np.searchsorted(self._ends, position, side="right"))
        record = position - int(self._ends[shard] - self._source.counts[shard])
        try:
            return dict(self._parser(self._source.read(shard, record), fixed, row))
        except RecordError as error:
            raise DamagedRecordError(f"{self._source.where(shard, record)}: {error}; prepare the split again") from None
