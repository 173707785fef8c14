"""The reader: from shards to an endless, resumable stream of batches.

The order of records is a function of the seed and a position, examples are made by threads or worker processes, and
tf.data carries the finished batches in order. This is the only module that imports TensorFlow, and only when the first
batch is asked for.
"""

from __future__ import annotations

import operator
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.reading.batches import BatchMaker
from shards.reading.config import ReaderConfig, StreamOptions
from shards.reading.examples import ReaderError, StreamExamples
from shards.reading.order import Mixture, Order
from shards.reading.pretraining import DecodedSegment, PretrainingParser, decode_example
from shards.reading.source import Source
from shards.reading.vocabulary import of_data, published
from shards.reading.workers import open_batches
from shards.records.parser import Arrays, RecordParser, Spec
from shards.storage.errors import RecordError, UsageError, UserError

__all__ = ["PretrainingReader", "Reader", "ReaderConfig", "ReaderError", "RecordParser", "StreamOptions", "examples"]

_ENDLESS = 1 << 62


@dataclass(frozen=True)
class _Batch:
    """A batch to be made: its place in the stream of this host, its size, and which parser makes it."""

    position: int
    size: int
    parser: int


@dataclass
class _BatchReport:
    """What is known of a batch besides its arrays."""

    size: int = 0
    record_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    bad: dict[tuple[int, int, int], str] = field(default_factory=dict)
    failure: Exception | None = None


_LAST_POSITION = 1 << 48
"""No training reads as many examples."""


class Reader:
    """Batches of the records of one data set, or of several mixed by weight, as dicts of NumPy arrays.

    `data` is whatever `dataset.open_data` takes, or a mapping from such to weights. `batch_size` is this host's; the
    hosts share the stream out by position, so that each has as many records as any other. Batches are made by the
    `parsers` in turn, a batch by the parser that its place in the stream says. Iterating raises
    `ReaderError` for more damaged records than `options.bad_records` allows, and other `UserError`s for data that
    cannot be read at all.

    Threads or worker processes of an open reader go on until it is closed or nobody refers to it any more.
    """

    def __init__(
        self,
        data: str | Mapping[str, float],
        parsers: RecordParser | Sequence[RecordParser],
        batch_size: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
        options: StreamOptions | None = None,
    ):
        options = options or StreamOptions()
        weights = {data: 1.0} if isinstance(data, str) else dict(data)
        if batch_size < 1 or not 0 <= host < hosts:
            raise UsageError(f"batch_size {batch_size}, host {host} of {hosts} hosts: there is no such share")
        if len(weights) > 1 and not options.training:
            raise UsageError(f"validation reads one data set at a time, not {len(weights)}")
        self._sources = [Source(path, options.split, options.files, options.cache) for path in weights]
        order_seed = seed if options.training else None
        self._orders = [
            Order(source.counts, order_seed, options.window, f"order {i}") for i, source in enumerate(self._sources)
        ]
        try:
            self._mixture = Mixture(list(weights.values()), seed)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._parsers = list(parsers) if isinstance(parsers, Sequence) else [parsers]
        self._options = options
        self._batch_size, self._seed, self._host, self._hosts = batch_size, seed, host, hosts
        self._position = 0
        self._origins = [0] * len(self._sources)
        self._transport: _Transport | None = None
        self._bad: dict[tuple[int, int, int], str] = {}
        self._counts: dict[str, int] = {}
        self._started = self._waited = 0.0
        self._examples = self._bytes = 0

    def __iter__(self) -> Iterator[Arrays]:
        return self

    def __next__(self) -> Arrays:
        if self._transport is None:
            self._transport = self._open()
        begun = time.perf_counter()
        self._started = self._started or begun
        try:
            batch, report = self._transport.next()
        except UserError:
            self.close()
            raise
        self._waited += time.perf_counter() - begun
        self._bad |= report.bad
        if len(self._bad) > self._options.bad_records:
            self.close()
            named = "; ".join(list(self._bad.values())[:5])
            raise ReaderError(f"{len(self._bad)} damaged records, {self._options.bad_records} are allowed: {named}")
        for name, count in report.counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        self._examples += report.size
        self._bytes += report.record_bytes
        self._position += report.size * self._hosts
        return batch

    @property
    def records(self) -> int:
        """Records of all data sets together; an epoch of a single one."""
        return sum(order.records for order in self._orders)

    def state(self) -> dict[str, Any]:
        """Where the stream stands after the batches taken so far, as JSON; the same on every host."""
        return {
            "seed": self._seed,
            "position": self._position,
            "data": [source.digest for source in self._sources],
            "positions": self._stream_positions(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue exactly after the batches that `state` counts, on any number of hosts.

        Raises `ReaderError` if the state belongs to other data or another seed.
        """
        seed, position, positions, data = _values_of(state)
        if seed != self._seed:
            raise ReaderError(f"the state was saved with seed {seed} and this reader has {self._seed}; use the same")
        if data != [source.digest for source in self._sources] or len(positions) != len(data):
            raise ReaderError("the state was saved with other shards; read the same data or start without a state")
        self.close()
        self._position = position
        # With unchanged weights the origins are zero; with new ones every data set goes on where it stopped.
        self._origins = [p - t for p, t in zip(positions, self._mixture.taken(position), strict=True)]

    def metrics(self) -> dict[str, Any]:
        """How the reader keeps up: waiting examples, seconds spent waiting, examples and bytes a second, and counts."""
        elapsed = time.perf_counter() - self._started if self._started else 0.0
        ready = self._transport.ready() if self._transport else 0
        return {
            "examples": self._examples,
            "waiting_examples": ready * self._batch_size,
            "wait_seconds": self._waited,
            "examples_per_second": self._examples / elapsed if elapsed else 0.0,
            "bytes_per_second": self._bytes / elapsed if elapsed else 0.0,
            "bad_records": list(self._bad.values()),
            **self._counts,
        }

    def close(self) -> None:
        """Stop working ahead; the next batch starts again from the current position."""
        if self._transport is not None:
            self._abandoned.detach()
            self._transport.close()
            self._transport = None

    def _stream_positions(self) -> list[int]:
        return [o + t for o, t in zip(self._origins, self._mixture.taken(self._position), strict=True)]

    def _starts(self) -> range:
        """Positions where the batches of all hosts together start."""
        end = _ENDLESS if self._options.training else self.records - self.records % self._hosts
        return range(self._position, end, self._batch_size * self._hosts)

    def _open(self) -> _Transport:
        options = self._options
        examples = StreamExamples(
            self._sources,
            self._orders,
            self._mixture,
            list(self._origins),
            self._parsers,
            self._seed,
            options.training,
            options.bad_records,
        )
        plan = _Plan(
            self._batch_size,
            self._host,
            self._hosts,
            len(self._parsers),
            None if options.training else self.records,
        )
        maker = open_batches(examples, self._batch_size, options)
        transport = _Transport(self._parsers[0].spec(), self._starts(), plan, maker)
        # In a thread of its own: the collector may run in one of those that closing waits for.
        closing = threading.Thread(target=transport.close, daemon=True)
        self._abandoned = weakref.finalize(self, closing.start)
        self._abandoned.atexit = False
        return transport


class PretrainingReader(Reader):
    """Pretraining batches with the arrays of docs/spec/shards.md 15.1, without a device axis.

    Of several configurations, which differ in how images are made, the batches take one after another. Raises
    `UsageError` if the shards hold another number of segments than the configuration asks for, `ReaderError` if data
    sets with different vocabularies are mixed.
    """

    def __init__(
        self,
        data: str | Mapping[str, float],
        config: ReaderConfig | Sequence[ReaderConfig],
        batch_size: int,
        seed: int,
        host: int = 0,
        hosts: int = 1,
    ):
        configs = [config] if isinstance(config, ReaderConfig) else list(config)
        self.config = config = configs[0]
        parsers = [PretrainingParser(one, published()) for one in configs]
        super().__init__(data, parsers, batch_size, seed, host, hosts, config.stream)
        vocabularies = [of_data(source.folder, source.manifest) for source in self._sources]
        if len({vocabulary.digest for vocabulary in vocabularies}) > 1:
            raise ReaderError("the data sets were written with different vocabularies; they cannot be mixed")
        for source in self._sources:
            if source.manifest and source.manifest.segments_per_example != config.segments:
                raise UsageError(
                    f"{source.folder!r} holds {source.manifest.segments_per_example} segments per example and the"
                    f" configuration asks for {config.segments}; set segments to the former"
                )
        self._parsers = [PretrainingParser(one, vocabularies[0]) for one in configs]
        self.vocabulary = vocabularies[0]


def examples(data: str, split: str | None = None) -> Iterator[tuple[list[DecodedSegment], list[np.ndarray]]]:
    """The decoded, unmasked segments and web texts of every example, in the order of the shards."""
    source = Source(data, split)
    for shard, count in enumerate(source.counts):
        for record in range(count):
            yield decode_example(source.read(shard, record))


@dataclass(frozen=True)
class _Plan:
    """Which examples the batch of one host has that starts at a position of the stream of all hosts.

    A pass over `records` ends with a smaller batch, and equally so on every host; an endless stream has `None`.
    """

    batch_size: int
    host: int
    hosts: int
    parsers: int
    records: int | None

    def batch(self, start: int) -> _Batch:
        size = self.batch_size
        if self.records is not None:
            size = min(size, (self.records - start) // self.hosts)
        parser = start // (self.batch_size * self.hosts) % self.parsers
        return _Batch(start + self.host * size, size, parser)


class _Transport:
    """Batches on their way: made ahead by threads or processes, carried in order by tf.data."""

    def __init__(self, spec: Spec, starts: range, plan: _Plan, maker: BatchMaker):
        tf = _tensorflow()
        self._tf, self._names, self._plan, self._maker = tf, list(spec), plan, maker
        self._reports: dict[int, _BatchReport] = {}
        self._starts = iter(starts)
        types = [tf.as_dtype(dtype) for _, dtype in spec.values()]
        options = tf.data.Options()
        options.autotune.enabled = False
        options.deterministic = True
        options.threading.private_threadpool_size = maker.ahead + 1
        dataset = tf.data.Dataset.range(starts.start, starts.stop, starts.step)
        dataset = dataset.map(
            lambda start: tf.numpy_function(self._work, [start], types, stateful=True),
            num_parallel_calls=maker.ahead,
            deterministic=True,
        )
        self._batches = dataset.prefetch(1).with_options(options).as_numpy_iterator()

    def next(self) -> tuple[Arrays, _BatchReport]:
        """The next batch and its report. Raises what went wrong in making it, `StopIteration` at the end."""
        start = next(self._starts)
        failure = None
        try:
            arrays = next(self._batches)
        except self._tf.errors.OpError:
            failure = self._reports.pop(start).failure if start in self._reports else None
            if failure is None:
                raise
        if failure is not None:
            # Not in the handler: TensorFlow's error would go with it, and hold the iterator that closing has to drop.
            raise failure
        return dict(zip(self._names, arrays, strict=True)), self._reports.pop(start)

    def ready(self) -> int:
        """Finished batches that nobody has taken."""
        return len(self._reports)

    def close(self) -> None:
        """Let the work under way end and start no more."""
        # Dropping the iterator waits for the batches in work; after that nobody makes any.
        if self._batches is not None:
            self._batches = None
            self._maker.close()
            # TensorFlow lets go of arrays that it was given, and whose tensors are gone, when it is called again.
            self._tf.constant(0)

    def _work(self, start: np.ndarray) -> list[np.ndarray]:
        arrays = self._make(int(start))
        if arrays is None:
            # TensorFlow would pass on the text only, and keep the error with all that its frames refer to.
            raise RuntimeError("the reader raises what went wrong")
        return arrays

    def _make(self, start: int) -> list[np.ndarray] | None:
        """The arrays of a batch, or none where making it failed; the report says more."""
        planned = self._plan.batch(start)
        try:
            batch, made = self._maker.make(planned.parser, planned.size, planned.position, planned.size)
        except (UserError, RecordError) as error:
            self._reports[start] = _BatchReport(failure=error)
            return None
        report = _BatchReport(planned.size)
        for example in made:
            report.record_bytes += example.record_bytes
            report.bad |= example.bad
            for name, count in example.counts.items():
                report.counts[name] = report.counts.get(name, 0) + count
        self._reports[start] = report
        return [batch[name] for name in self._names]


def _tensorflow():
    """TensorFlow, without any accelerator: those belong to the training step."""
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        if tf.config.get_visible_devices(kind):
            tf.config.set_visible_devices([], kind)
    return tf


def _values_of(state: Any) -> tuple[int, int, list[int], list[str]]:
    """Seed, position, positions and data of a state. Raises `ReaderError` if one is missing or of another type."""
    try:
        seed, position = operator.index(state["seed"]), operator.index(state["position"])
        positions, data = list(map(operator.index, state["positions"])), list(state["data"])
    except (KeyError, TypeError, IndexError) as error:
        raise ReaderError(f"this is no state of a reader: {type(error).__name__} {str(error)[:80]}") from None
    if not all(0 <= number <= _LAST_POSITION for number in (position, *positions)):
        raise ReaderError("this is no state of a reader: a position is below 0 or too large")
    return seed, position, positions, data
