"""The reader: from shards to an endless, resumable stream of batches.

The order of records is a function of the seed and a position, examples are made by threads, and tf.data carries the
finished batches in order. This is the only module that imports TensorFlow, and only when the first batch is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from shards.errors import UsageError, UserError
from shards.randomness import generator
from shards.reading.config import ReaderConfig, StreamOptions
from shards.reading.order import Mixture, Order
from shards.reading.pretraining import Arrays, DecodedSegment, PretrainingParser, Streams, decode_example
from shards.reading.source import Source
from shards.records.example import RecordError
from shards.vocabulary import of_data, published

__all__ = ["PretrainingReader", "Reader", "ReaderConfig", "ReaderError", "RecordParser", "StreamOptions", "examples"]

_BATCHES_IN_WORK = 2
"""So that no thread waits for the slowest example of a batch."""

_ENDLESS = 1 << 62
_ALIGNMENT = 64
"""TensorFlow takes arrays over without a copy if they start on such a boundary."""


class ReaderError(UserError):
    """The data or a state do not allow to go on; the message says why."""


class RecordParser(Protocol):
    """What turns the bytes of one record into arrays."""

    def spec(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and type of every array of one example."""

    def __call__(self, payload: bytes, streams: Streams, out: Arrays) -> Mapping[str, int]:
        """Fill the arrays of one example and count what happened. Raises `RecordError` if the record is damaged."""


@dataclass
class _BatchReport:
    """What is known of a batch besides its arrays."""

    size: int = 0
    record_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    bad: dict[tuple[int, int, int], str] = field(default_factory=dict)
    failure: Exception | None = None


class Reader:
    """Batches of the records of one data set, or of several mixed by weight, as dicts of NumPy arrays.

    `data` is whatever `dataset.open_data` takes, or a mapping from such to weights. `batch_size` is this host's; the
    hosts share the stream out by position, so that each has as many records as any other. Batches are made by the
    `parsers` in turn, a batch by the parser that its place in the stream says. Iterating raises
    `ReaderError` for more damaged records than `options.bad_records` allows, and other `UserError`s for data that
    cannot be read at all.
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
            spec = self._parsers[0].spec()
            self._transport = _Transport(spec, self._starts(), self._make_batch, self._options.threads)
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
        try:
            seed, position, positions = int(state["seed"]), int(state["position"]), list(map(int, state["positions"]))
            data = list(state["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReaderError(f"this is no state of a reader: {type(error).__name__} {error}") from None
        if seed != self._seed:
            raise ReaderError(f"the state was saved with seed {seed} and this reader has {self._seed}; use the same")
        if data != [source.digest for source in self._sources] or len(positions) != len(data) or position < 0:
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
            self._transport.close()
            self._transport = None

    def _stream_positions(self) -> list[int]:
        return [o + t for o, t in zip(self._origins, self._mixture.taken(self._position), strict=True)]

    def _starts(self) -> range:
        """Positions where the batches of all hosts together start."""
        end = _ENDLESS if self._options.training else self.records - self.records % self._hosts
        return range(self._position, end, self._batch_size * self._hosts)

    def _make_batch(self, start: int, pool: ThreadPoolExecutor) -> tuple[Arrays, _BatchReport]:
        size = self._batch_size
        if not self._options.training:
            # The last batch of a pass is smaller, and equally so on every host.
            size = min(size, (self.records - start) // self._hosts)
        parser = self._parsers[start // (self._batch_size * self._hosts) % len(self._parsers)]
        batch = {name: _aligned_empty((size, *shape), dtype) for name, (shape, dtype) in parser.spec().items()}
        first = start + self._host * size
        report = _BatchReport(size)
        made = [pool.submit(self._make_example, parser, first + i, _row(batch, i)) for i in range(size)]
        for example in made:
            record_bytes, counts, bad = example.result()
            report.record_bytes += record_bytes
            report.bad |= bad
            for name, count in counts.items():
                report.counts[name] = report.counts.get(name, 0) + count
        return batch, report

    def _make_example(
        self, parser: RecordParser, position: int, out: Arrays
    ) -> tuple[int, Mapping[str, int], dict[tuple[int, int, int], str]]:
        """Fill one example; a damaged record is replaced by another of its data set, the same one every time."""
        number, rank = self._mixture.locate(position)
        source, order = self._sources[number], self._orders[number]
        place = order.locate(self._origins[number] + rank)
        epoch, shard, record = place.epoch if self._options.training else 0, place.shard, place.record
        bad: dict[tuple[int, int, int], str] = {}
        while True:
            name = source.name(shard, record)
            try:
                payload = source.read(shard, record)
                return len(payload), parser(payload, _streams(self._seed, epoch, name), out), bad
            except RecordError as error:
                bad[number, shard, record] = f"{source.where(shard, record)}: {error}"
            if len(bad) > self._options.bad_records:
                return 0, {}, bad
            rng = generator(self._seed, "replacement", epoch, name)
            shard = int(rng.choice(source.counts.size, p=source.counts / source.counts.sum()))
            record = int(rng.integers(source.counts[shard]))


class PretrainingReader(Reader):
    """Pretraining batches with the arrays of spec shards.md 15.1, without a device axis.

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


class _Transport:
    """Batches on their way: made ahead by threads, carried in order by tf.data."""

    def __init__(
        self,
        spec: Mapping[str, tuple[tuple[int, ...], np.dtype]],
        starts: range,
        make: Callable[[int, ThreadPoolExecutor], tuple[Arrays, _BatchReport]],
        threads: int | None,
    ):
        tf = _tensorflow()
        self._tf, self._names, self._make = tf, list(spec), make
        self._reports: dict[int, _BatchReport] = {}
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "reader")
        self._starts = iter(starts)
        types = [tf.as_dtype(dtype) for _, dtype in spec.values()]
        options = tf.data.Options()
        options.autotune.enabled = False
        options.deterministic = True
        options.threading.private_threadpool_size = _BATCHES_IN_WORK + 1
        dataset = tf.data.Dataset.range(starts.start, starts.stop, starts.step)
        dataset = dataset.map(
            lambda start: tf.numpy_function(self._work, [start], types, stateful=True),
            num_parallel_calls=_BATCHES_IN_WORK,
            deterministic=True,
        )
        self._batches = dataset.prefetch(1).with_options(options).as_numpy_iterator()

    def next(self) -> tuple[Arrays, _BatchReport]:
        """The next batch and its report. Raises what went wrong in making it, `StopIteration` at the end."""
        start = next(self._starts)
        try:
            arrays = next(self._batches)
        except self._tf.errors.OpError:
            failure = self._reports.pop(start).failure if start in self._reports else None
            if failure is None:
                raise
            raise failure from None
        return dict(zip(self._names, arrays, strict=True)), self._reports.pop(start)

    def ready(self) -> int:
        """Finished batches that nobody has taken."""
        return len(self._reports)

    def close(self) -> None:
        """Let the work under way end and start no more."""
        # Dropping the iterator waits for the batches in work; after that nobody submits to the pool.
        self._batches = None
        self._pool.shutdown(wait=True)

    def _work(self, start: np.ndarray) -> list[np.ndarray]:
        key = int(start)
        try:
            batch, self._reports[key] = self._make(key, self._pool)
        except (UserError, RecordError) as error:
            # TensorFlow would pass on the text only; the consumer raises the error itself in its turn.
            self._reports[key] = _BatchReport(failure=error)
            raise
        return [batch[name] for name in self._names]


def _tensorflow():
    """TensorFlow, without any accelerator: those belong to the training step."""
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        if tf.config.get_visible_devices(kind):
            tf.config.set_visible_devices([], kind)
    return tf


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % _ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def _row(batch: Arrays, i: int) -> Arrays:
    return {name: array[i, ...] for name, array in batch.items()}


def _streams(seed: int, epoch: int, record: str) -> Streams:
    return lambda purpose: generator(seed, "reader", purpose, epoch, record)
