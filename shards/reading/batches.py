"""Batches made by threads of this process, and what they share with those of worker processes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from shards.reading.examples import Examples, Made
from shards.records.parser import Arrays, Spec

ALIGNMENT = 64
"""TensorFlow and JAX take arrays over without a copy if they start on such a boundary."""


class BatchMaker(Protocol):
    """What makes whole batches, several at the same time."""

    ahead: int
    """How many batches must be in work to keep everyone busy."""

    def make(self, parser: int, rows: int, position: int, count: int) -> tuple[Arrays, Sequence[Made]]:
        """Arrays of so many rows, of which the first `count` hold the examples from `position` on.

        The other rows hold anything. Raises what the first example that failed raised.
        """

    def close(self) -> None:
        """End threads or processes. No batch may be in work."""


class ThreadBatches:
    """Batches whose examples are made by threads of this process, as many as it may use cores by default."""

    ahead = 2  # So that no thread waits for the slowest example of a batch.

    def __init__(self, examples: Examples, threads: int | None = None):
        self._examples = examples
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "reader")

    def make(self, parser: int, rows: int, position: int, count: int) -> tuple[Arrays, Sequence[Made]]:
        """As in `BatchMaker`."""
        spec = self._examples.parsers[parser].spec()
        batch = {name: aligned_empty((rows, *shape), dtype) for name, (shape, dtype) in spec.items()}
        make = self._examples.make
        made = [self._pool.submit(make, parser, position + i, example_rows(batch, i)) for i in range(count)]
        return batch, [example.result() for example in made]

    def close(self) -> None:
        """As in `BatchMaker`."""
        self._pool.shutdown(wait=True)


def example_rows(batch: Arrays, i: int) -> Arrays:
    """The arrays of one example of a batch."""
    return {name: array[i, ...] for name, array in batch.items()}


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of anything that starts on the boundary."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def batch_bytes(spec: Spec, rows: int) -> int:
    """The size of a batch in one piece of memory, each array on the boundary."""
    return sum(_array_bytes(shape, dtype, rows) for shape, dtype in spec.values())


def batch_arrays(memory: np.ndarray, spec: Spec, rows: int) -> Arrays:
    """The arrays of a batch in `memory uint8 [n]`, which starts on the boundary."""
    arrays, first = {}, 0
    for name, (shape, dtype) in spec.items():
        size = rows * math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = memory[first : first + size].view(dtype).reshape((rows, *shape))
        first += _array_bytes(shape, dtype, rows)
    return arrays


def _array_bytes(shape: tuple[int, ...], dtype: np.dtype, rows: int) -> int:
    size = rows * math.prod(shape) * np.dtype(dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT
