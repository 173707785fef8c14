"""A single pass over a split for evaluation: every record once, in order, on all hosts together.

The last batch is padded with empty rows and a mask, so that every host has the same number of batches of equal shape
and no record is dropped. Deterministic and without TensorFlow.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from shards.reading.batches import BatchBuilder
from shards.reading.cache import CacheOptions
from shards.reading.config import StreamOptions
from shards.reading.examples import ExampleInfo
from shards.reading.source import Source
from shards.reading.workers import open_batches
from shards.records.parser import Arrays, RecordParser, Streams
from shards.records.question_rows import fixed
from shards.storage.errors import RecordError, UserError

IS_RECORD = "is_record"
"""Name of the mask `bool [batch]` among the arrays of a batch: false for padding rows."""


class DamagedRecordError(UserError):
    """A record of an evaluation split is damaged; the message names it."""


def _same_for_all(record: str) -> Streams:
    del record
    return fixed


class Pass:
    """An iterable of this host's rows of the batches of one split."""

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
        *,
        records_per_batch: int | None = None,
        streams: Callable[[str], Streams] = _same_for_all,
        bad_records: int = 0,
    ):
        """Open the split; `batch_size` is the number of rows on this host, `workers` is as in `StreamOptions`.

        A batch has at most `records_per_batch` records on all hosts together; default: its number of rows. `streams`
        returns the random generators of a record by its name. Up to `bad_records` damaged records are skipped and
        listed in `bad`. Raises `UsageError` if there are no records.
        """
        source = Source(data, split, cache=cache)
        self._examples = _PassExamples(source, [parser], np.cumsum(source.counts), streams)
        self._size, self._host = batch_size, host
        self._step = records_per_batch or batch_size * hosts
        self._options = StreamOptions(training=False, workers=workers)
        self._bad_records = bad_records
        self.records = int(source.counts.sum())
        self.counts: dict[str, int] = {}
        """Sums of the parser's counts so far."""
        self.bad: list[str] = []
        """The damaged records of this host so far, with their reasons."""

    def __iter__(self) -> Iterator[Arrays]:
        """Yield batches with `IS_RECORD`. Raises `DamagedRecordError` for more than `bad_records` damaged records."""
        with (
            contextlib.closing(open_batches(self._examples, self._size, self._options)) as builder,
            ThreadPoolExecutor(builder.parallel, "evaluation") as pool,
        ):
            batches: deque[Future[tuple[Arrays, Sequence[ExampleInfo]]]] = deque()
            for start in range(0, self.records, self._step):
                batches.append(pool.submit(self._batch, start, builder))
                if len(batches) > builder.parallel:
                    yield self._counted(*batches.popleft().result())
            while batches:
                yield self._counted(*batches.popleft().result())

    def _batch(self, start: int, builder: BatchBuilder) -> tuple[Arrays, Sequence[ExampleInfo]]:
        before = self._host * self._size
        count = min(max(min(self.records - start, self._step) - before, 0), self._size)
        batch, infos = builder.build(0, self._size, start + before, count)
        is_record = np.zeros(self._size, bool)
        is_record[:count] = [not info.bad for info in infos]
        for array in batch.values():
            array[~is_record] = 0
        return batch | {IS_RECORD: is_record}, infos

    def _counted(self, batch: Arrays, infos: Sequence[ExampleInfo]) -> Arrays:
        for info in infos:
            self.bad += info.bad.values()
            for name, count in info.counts.items():
                self.counts[name] = self.counts.get(name, 0) + count
        if len(self.bad) > self._bad_records:
            allowed = f"; {self._bad_records} damaged records are allowed" if self._bad_records else ""
            raise DamagedRecordError(f"{self.bad[-1]}; prepare the split again{allowed}")
        return batch


@dataclass(frozen=True)
class _PassExamples:
    """The records of a source in order; `ends` are the positions after the last record of each shard."""

    source: Source
    parsers: Sequence[RecordParser]
    ends: Int64[np.ndarray, "shards"]
    streams: Callable[[str], Streams]

    def fill(self, parser: int, position: int, out: Arrays) -> ExampleInfo:
        """Fill the arrays of the record at a position; a damaged record is listed in `bad`."""
        source = self.source
        shard = int(np.searchsorted(self.ends, position, side="right"))
        record = position - int(self.ends[shard] - source.counts[shard])
        try:
            payload = source.read(shard, record)
            streams = self.streams(source.name(shard, record))
            return ExampleInfo(len(payload), self.parsers[parser](payload, streams, out))
        except RecordError as error:
            return ExampleInfo(0, {}, {(0, shard, record): f"{source.where(shard, record)}: {error}"})
