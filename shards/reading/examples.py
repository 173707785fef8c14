"""Compute single examples of a stream, in any thread or process.

`StreamExamples` can be pickled: a worker process receives it once, and then only positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from shards.reading.order import Mixture, Order
from shards.reading.source import Source
from shards.records.parser import Arrays, RecordParser, Streams
from shards.storage.errors import RecordError, UserError
from shards.storage.randomness import generator


class ReaderError(UserError):
    """The reader cannot continue because of its data, state or worker processes; the message says why."""


class ExampleInfo(NamedTuple):
    """Size and counts of an example whose arrays have been filled.

    `bad` maps each damaged record that was replaced, as (data set, shard, record), to the reason.
    """

    record_bytes: int
    counts: Mapping[str, int]
    bad: Mapping[tuple[int, int, int], str] = {}


class Examples(Protocol):
    """A stream of examples with random access."""

    @property
    def parsers(self) -> Sequence[RecordParser]:
        """The parsers, by number."""
        ...

    def fill(self, parser: int, position: int, out: Arrays) -> ExampleInfo:
        """Fill the arrays of the example at a position with one of the parsers."""
        ...


@dataclass(frozen=True)
class StreamExamples:
    """The examples of one data set, or of a mixture of several.

    `origins` are the positions of each data set at position 0 of the stream; `bad_records` is the maximum number of
    damaged records that are replaced for one example.
    """

    sources: Sequence[Source]
    orders: Sequence[Order]
    mixture: Mixture
    origins: Sequence[int]
    parsers: Sequence[RecordParser]
    seed: int
    training: bool
    bad_records: int

    def fill(self, parser: int, position: int, out: Arrays) -> ExampleInfo:
        """Fill one example; a damaged record is replaced by another one of its data set, deterministically."""
        number, rank = self.mixture.locate(position)
        source = self.sources[number]
        place = self.orders[number].locate(self.origins[number] + rank)
        epoch, shard, record = place.epoch if self.training else 0, place.shard, place.record
        bad: dict[tuple[int, int, int], str] = {}
        while True:
            name = source.name(shard, record)
            try:
                payload = source.read(shard, record)
                streams = record_streams(self.seed, epoch, name)
                return ExampleInfo(len(payload), self.parsers[parser](payload, streams, out), bad)
            except RecordError as error:
                bad[number, shard, record] = f"{source.where(shard, record)}: {error}"
            if len(bad) > self.bad_records:
                return ExampleInfo(0, {}, bad)
            rng = generator(self.seed, "replacement", epoch, name)
            shard = int(rng.choice(source.counts.size, p=source.counts / source.counts.sum()))
            record = int(rng.integers(source.counts[shard]))


def record_streams(seed: int, epoch: int, record: str) -> Streams:
    """Return the random generators of one record in one epoch, by purpose."""
    return lambda purpose: generator(seed, "reader", purpose, epoch, record)
