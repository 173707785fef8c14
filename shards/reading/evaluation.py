"""One pass over a split for evaluation: every record once, in order, on all hosts together.

The last batch is filled up with empty rows that a mask tells apart, so that each host has equally many batches of equal
shape and nothing is left out. No TensorFlow and nothing random.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from shards.errors import UserError
from shards.reading.batches import BatchMaker
from shards.reading.cache import CacheOptions
from shards.reading.config import StreamOptions
from shards.reading.examples import Arrays, Made, RecordParser
from shards.reading.questions import fixed
from shards.reading.source import Source
from shards.reading.workers import open_batches
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
        workers: int | None = None,
    ):
        """`batch_size` is this host's, `workers` is as in `StreamOptions`.

        Raises `UsageError` if there is nothing to read.
        """
        source = Source(data, split, cache=cache)
        self._examples = _PassExamples(source, [parser], np.cumsum(source.counts))
        self._size, self._host, self._hosts = batch_size, host, hosts
        self._options = StreamOptions(training=False, workers=workers)
        self.records = int(source.counts.sum())
        self.counts: dict[str, int] = {}
        """What the parser counted so far."""

    def __iter__(self) -> Iterator[Arrays]:
        """Yields batches with `IS_RECORD`. Raises `DamagedRecordError` for a record that cannot be read."""
        with (
            contextlib.closing(open_batches(self._examples, self._size, self._options)) as maker,
            ThreadPoolExecutor(maker.ahead, "evaluation") as pool,
        ):
            batches: deque[Future[tuple[Arrays, Sequence[Made]]]] = deque()
            for start in range(0, self.records, self._size * self._hosts):
                batches.append(pool.submit(self._batch, start + self._host * self._size, maker))
                if len(batches) > maker.ahead:
                    yield self._counted(*batches.popleft().result())
            while batches:
                yield self._counted(*batches.popleft().result())

    def _batch(self, first: int, maker: BatchMaker) -> tuple[Arrays, Sequence[Made]]:
        here = min(max(self.records - first, 0), self._size)
        batch, made = maker.make(0, self._size, first, here)
        for array in batch.values():
            array[here:] = 0
        return batch | {IS_RECORD: np.arange(self._size) < here}, made

    def _counted(self, batch: Arrays, made: Sequence[Made]) -> Arrays:
        for example in made:
            for name, count in example.counts.items():
                self.counts[name] = self.counts.get(name, 0) + count
        return batch


@dataclass(frozen=True)
class _PassExamples:
    """The records of a source in their order; `ends` are the positions after the last record of each shard."""

    source: Source
    parsers: Sequence[RecordParser]
    ends: np.ndarray

    def make(self, parser: int, position: int, out: Arrays) -> Made:
        """Fill the arrays of the record at a position. Raises `DamagedRecordError` if it cannot be read."""
        source = self.source
        shard = int(np.searchsorted(self.ends, position, side="right"))
        record = position - int(self.ends[shard] - source.counts[shard])
        try:
            payload = source.read(shard, record)
            return Made(len(payload), self.parsers[parser](payload, fixed, out))
        except RecordError as error:
            raise DamagedRecordError(f"{source.where(shard, record)}: {error}; prepare the split again") from None
