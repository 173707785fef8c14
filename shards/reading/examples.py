"""What makes one example of a stream, in whatever thread or process it runs.

`StreamExamples` can be pickled: a worker process gets it once, and then only positions.
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
    """The data, a state or the worker processes do not allow to go on; the message says why."""


class Made(NamedTuple):
    """What is known of an example besides its arrays.

    `bad` has the reason for each damaged record, by data set, shard and record, that another one replaced.
    """

    record_bytes: int
    counts: Mapping[str, int]
    bad: Mapping[tuple[int, int, int], str] = {}


class Examples(Protocol):
    """A stream of examples that can be made in any order."""

    parsers: Sequence[RecordParser]

    def make(self, parser: int, position: int, out: Arrays) -> Made:
        """Fill the arrays of the example at a position by one of the parsers."""


@dataclass(frozen=True)
class StreamExamples:
    """The examples of one data set, or of several that are mixed.

    `origins` are the positions in each data set that the stream's position 0 stands for; `bad_records` is how many
    damaged records are replaced by others before an example is given up.
    """

    sources: Sequence[Source]
    orders: Sequence[Order]
    mixture: Mixture
    origins: Sequence[int]
    parsers: Sequence[RecordParser]
    seed: int
    training: bool
    bad_records: int

    def make(self, parser: int, position: int, out: Arrays) -> Made:
        """Fill one example; a damaged record is replaced by another of its data set, the same one every time."""
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
                return Made(len(payload), self.parsers[parser](payload, streams, out), bad)
            except RecordError as error:
                bad[number, shard, record] = f"{source.where(shard, record)}: {error}"
            if len(bad) > self.bad_records:
                return Made(0, {}, bad)
            rng = generator(self.seed, "replacement", epoch, name)
            shard = int(rng.choice(source.counts.size, p=source.counts / source.counts.sum()))
            record = int(rng.integers(source.counts[shard]))


def record_streams(seed: int, epoch: int, record: str) -> Streams:
    """Return the random generators of one record in one epoch, by purpose."""
    return lambda purpose: generator(seed, "reader", purpose, epoch, record)
