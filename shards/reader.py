"""The reader: turn shards into an endless, resumable stream of batches.

The order of records is a function of the seed and a position, threads or worker processes compute the examples, and
tf.data delivers the finished batches in order. This is the only module that imports TensorFlow, and only when the first
batch is requested.
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

from shards.reading.batches import BatchBuilder
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
    """A batch to compute: its position in the stream of this host, its size, and the number of its parser."""

    position: int
    size: int
    parser: int


@dataclass
class _BatchReport:
    """Counts and errors of a batch; `failure` is the exception if the batch could not be computed."""

    size: int = 0
    record_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    bad: dict[tuple[int, int, int], str] = field(default_factory=dict)
    failure: Exception | None = None


_LAST_POSITION = 1 << 48
"""Upper bound of a valid position; no training run reads as many examples."""


class Reader:
    """An iterator of batches, dicts of NumPy arrays, from one data set or from several mixed by weight.

    `data` is an argument of `dataset.open_data`, or a mapping from such to weights. `batch_size` is the size on this
    host; the hosts share the stream by position, so that each reads the same number of records. Consecutive batches use
    the `parsers` in turn. Iterating raises `ReaderError` for more damaged records than `options.bad_records`, and other
    `UserError`s for data that cannot be read.

    The threads or worker processes of an open reader run until it is closed or garbage-collected.
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
            raise UsageError(
                f"batch_size {batch_size}, host {host} of {hosts} hosts is not valid; the batch size must be positive"
                " and the host one of 0 to hosts - 1"
            )
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
        self._stream: _BatchStream | None = None
        self._bad: dict[tuple[int, int, int], str] = {}
        self._counts: dict[str, int] = {}
        self._started = self._waited = 0.0
        self._examples = self._bytes = 0

    def __iter__(self) -> Iterator[Arrays]:
        return self

    def __next__(self) -> Arrays:
        if self._stream is None:
            self._stream = self._open()
        start_time = time.perf_counter()
        self._started = self._started or start_time
        try:
            batch, report = self._stream.next()
        except UserError:
            self.close()
            raise
        self._waited += time.perf_counter() - start_time
        self._bad |= report.bad
        if len(self._bad) > self._options.bad_records:
            self.close()
            reasons = "; ".join(list(self._bad.values())[:5])
            raise ReaderError(f"{len(self._bad)} damaged records, {self._options.bad_records} are allowed: {reasons}")
        for name, count in report.counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        self._examples += report.size
        self._bytes += report.record_bytes
        self._position += report.size * self._hosts
        return batch

    @property
    def records(self) -> int:
        """Number of records of all data sets together; one epoch if there is a single data set."""
        return sum(order.records for order in self._orders)

    def state(self) -> dict[str, Any]:
        """Return the position of the stream after the batches returned so far, JSON-able; the same on every host."""
        return {
            "seed": self._seed,
            "position": self._position,
            "data": [source.digest for source in self._sources],
            "positions": self._stream_positions(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume exactly after the batches that `state` counts, on any number of hosts.

        Raises `ReaderError` if the state belongs to other data or another seed.
        """
        seed, position, positions, data = _parse_state(state)
        if seed != self._seed:
            raise ReaderError(
                f"the state was saved with seed {seed} and this reader has {self._seed}; use the same seed"
            )
        if data != [source.digest for source in self._sources] or len(positions) != len(data):
            raise ReaderError("the state was saved with other shards; read the same data or start without a state")
        self.close()
        self._position = position
        # With unchanged weights the origins are zero; with new weights every data set resumes where it stopped.
        self._origins = [p - n for p, n in zip(positions, self._mixture.consumed(position), strict=True)]

    def metrics(self) -> dict[str, Any]:
        """Return throughput metrics: prefetched examples, seconds spent waiting, examples and bytes per second, counts.

        `waiting_examples` are computed and not yet returned. `bad_records` lists the reasons of damaged records.
        """
        elapsed = time.perf_counter() - self._started if self._started else 0.0
        ready = self._stream.ready() if self._stream else 0
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
        """Stop prefetching; the next batch restarts from the current position."""
        if self._stream is not None:
            self._finalizer.detach()
            self._stream.close()
            self._stream = None

    def _stream_positions(self) -> list[int]:
        return [o + n for o, n in zip(self._origins, self._mixture.consumed(self._position), strict=True)]

    def _starts(self) -> range:
        """Return the positions where the global batches (of all hosts together) start."""
        end = _ENDLESS if self._options.training else self.records - self.records % self._hosts
        return range(self._position, end, self._batch_size * self._hosts)

    def _open(self) -> _BatchStream:
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
        builder = open_batches(examples, self._batch_size, options)
        stream = _BatchStream(self._parsers[0].spec(), self._starts(), plan, builder)
        # In a thread of its own: the garbage collector may run in a thread that closing waits for.
        closing = threading.Thread(target=stream.close, daemon=True)
        self._finalizer = weakref.finalize(self, closing.start)
        self._finalizer.atexit = False
        return stream


class PretrainingReader(Reader):
    """An iterator of pretraining batches with the arrays of docs/spec/shards.md 15.1, without a device axis.

    Several configurations, which may differ in image sizes, are used in turn. Raises `UsageError` if the shards have a
    different number of segments per example than the configuration, `ReaderError` if data sets with different
    vocabularies are mixed.
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
                    f"{source.folder!r} has {source.manifest.segments_per_example} segments per example and the"
                    f" configuration {config.segments}; set segments to {source.manifest.segments_per_example}"
                )
        self._parsers = [PretrainingParser(one, vocabularies[0]) for one in configs]
        self.vocabulary = vocabularies[0]


def examples(data: str, split: str | None = None) -> Iterator[tuple[list[DecodedSegment], list[np.ndarray]]]:
    """Yield the decoded, unmasked segments and the web texts of every example, in the order of the shards."""
    source = Source(data, split)
    for shard, count in enumerate(source.counts):
        for record in range(count):
            yield decode_example(source.read(shard, record))


@dataclass(frozen=True)
class _Plan:
    """Maps a global batch to this host's batch.

    A single pass over `records` ends with a smaller batch, of equal size on every host; `None` is an endless stream.
    """

    batch_size: int
    host: int
    hosts: int
    parsers: int
    records: int | None

    def batch(self, start: int) -> _Batch:
        """Return this host's part of the global batch that starts at a position."""
        size = self.batch_size
        if self.records is not None:
            size = min(size, (self.records - start) // self.hosts)
        parser = start // (self.batch_size * self.hosts) % self.parsers
        return _Batch(start + self.host * size, size, parser)


class _BatchStream:
    """Batches prefetched by threads or processes and delivered in order by tf.data."""

    def __init__(self, spec: Spec, starts: range, plan: _Plan, builder: BatchBuilder):
        tf = _tensorflow()
        self._tf, self._names, self._plan, self._builder = tf, list(spec), plan, builder
        self._reports: dict[int, _BatchReport] = {}
        self._starts = iter(starts)
        types = [tf.as_dtype(dtype) for _, dtype in spec.values()]
        options = tf.data.Options()
        options.autotune.enabled = False
        options.deterministic = True
        options.threading.private_threadpool_size = builder.parallel + 1
        dataset = tf.data.Dataset.range(starts.start, starts.stop, starts.step)
        dataset = dataset.map(
            lambda start: tf.numpy_function(self._compute, [start], types, stateful=True),
            num_parallel_calls=builder.parallel,
            deterministic=True,
        )
        self._batches: Iterator | None = dataset.prefetch(1).with_options(options).as_numpy_iterator()

    def next(self) -> tuple[Arrays, _BatchReport]:
        """Return the next batch and its report. Raises its failure, or `StopIteration` at the end."""
        start = next(self._starts)
        arrays = self._receive(start)
        if isinstance(arrays, Exception):
            # Raised outside the handler: TensorFlow's error as context would keep the iterator alive after `close`.
            raise arrays
        return dict(zip(self._names, arrays, strict=True)), self._reports.pop(start)

    def _receive(self, start: int) -> Sequence[np.ndarray] | Exception:
        """Return the arrays of the next batch, or the exception that its report names."""
        if self._batches is None:
            raise RuntimeError("the reader is closed")
        try:
            return next(self._batches)
        except self._tf.errors.OpError:
            failure = self._reports.pop(start).failure if start in self._reports else None
            if failure is None:
                raise
            return failure

    def ready(self) -> int:
        """Return the number of finished batches that have not been returned."""
        return len(self._reports)

    def close(self) -> None:
        """Wait for the batches in progress and start no more."""
        # Dropping the iterator waits for the batches in progress; no more are started after that.
        if self._batches is not None:
            self._batches = None
            self._builder.close()
            # TensorFlow releases input arrays whose tensors have been deleted at its next call.
            self._tf.constant(0)

    def _compute(self, start: np.ndarray) -> list[np.ndarray]:
        arrays = self._build(int(start))
        if arrays is None:
            # TensorFlow would pass on the text only, and keep the exception with its frames alive.
            raise RuntimeError("the reader raises the failure of this batch")
        return arrays

    def _build(self, start: int) -> list[np.ndarray] | None:
        """Return the arrays of a batch, or `None` if it failed; its report has the failure."""
        planned = self._plan.batch(start)
        try:
            batch, infos = self._builder.build(planned.parser, planned.size, planned.position, planned.size)
        except (UserError, RecordError) as error:
            self._reports[start] = _BatchReport(failure=error)
            return None
        report = _BatchReport(planned.size)
        for info in infos:
            report.record_bytes += info.record_bytes
            report.bad |= info.bad
            for name, count in info.counts.items():
                report.counts[name] = report.counts.get(name, 0) + count
        self._reports[start] = report
        return [batch[name] for name in self._names]


def _tensorflow():
    """Import TensorFlow without accelerators, which belong to the training step."""
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        if tf.config.get_visible_devices(kind):
            tf.config.set_visible_devices([], kind)
    return tf


def _parse_state(state: Any) -> tuple[int, int, list[int], list[str]]:
    """Return seed, position, positions and data of a state. Raises `ReaderError` if it is not valid."""
    try:
        seed, position = operator.index(state["seed"]), operator.index(state["position"])
        positions, data = list(map(operator.index, state["positions"])), list(state["data"])
    except (KeyError, TypeError, IndexError) as error:
        raise ReaderError(f"not a valid reader state: {type(error).__name__} {str(error)[:80]}") from None
    if not all(0 <= number <= _LAST_POSITION for number in (position, *positions)):
        raise ReaderError("not a valid reader state: a position is negative or too large")
    return seed, position, positions, data
