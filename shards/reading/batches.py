"""Batches computed by threads of this process, and the memory layout shared with worker processes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from shards.reading.examples import ExampleInfo, Examples
from shards.records.parser import Arrays, Spec

ALIGNMENT = 64
"""Bytes; TensorFlow and JAX use an array without a copy if it is aligned to this boundary."""


class BatchBuilder(Protocol):
    """Computes whole batches, several at the same time."""

    parallel: int
    """Number of batches in progress that keeps all threads or processes busy."""

    def build(self, parser: int, rows: int, position: int, count: int) -> tuple[Arrays, Sequence[ExampleInfo]]:
        """Return arrays of `rows` rows, the first `count` of which are the examples from `position` on.

        The other rows are uninitialised. Raises the exception of the first example that failed.
        """
        ...

    def close(self) -> None:
        """Stop threads or processes. No batch may be in progress."""
        ...


class ThreadBatches:
    """Computes examples with threads of this process, by default one per available core."""

    parallel = 2  # So that no thread waits for the slowest example of a batch.

    def __init__(self, examples: Examples, threads: int | None = None):
        self._examples = examples
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "reader")

    def build(self, parser: int, rows: int, position: int, count: int) -> tuple[Arrays, Sequence[ExampleInfo]]:
        """Implement `BatchBuilder.build`."""
        spec = self._examples.parsers[parser].spec()
        batch = {name: aligned_empty((rows, *shape), dtype) for name, (shape, dtype) in spec.items()}
        fill = self._examples.fill
        futures = [self._pool.submit(fill, parser, position + i, example_rows(batch, i)) for i in range(count)]
        return batch, [future.result() for future in futures]

    def close(self) -> None:
        """Implement `BatchBuilder.close`."""
        self._pool.shutdown(wait=True)


def example_rows(batch: Arrays, i: int) -> Arrays:
    """Return views of the arrays of example `i` of a batch."""
    return {name: array[i, ...] for name, array in batch.items()}


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that is aligned to `ALIGNMENT`."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def batch_bytes(spec: Spec, rows: int) -> int:
    """Return the bytes of a batch in one block of memory with each array aligned."""
    return sum(_array_bytes(shape, dtype, rows) for shape, dtype in spec.values())


def batch_arrays(memory: UInt8[np.ndarray, "bytes"], spec: Spec, rows: int) -> Arrays:
    """Return the arrays of a batch as views of `memory`, which is aligned."""
    arrays, first = {}, 0
    for name, (shape, dtype) in spec.items():
        size = rows * math.prod(shape) * np.dtype(dtype).itemsize
        arrays[name] = memory[first : first + size].view(dtype).reshape((rows, *shape))
        first += _array_bytes(shape, dtype, rows)
    return arrays


def _array_bytes(shape: tuple[int, ...], dtype: np.dtype, rows: int) -> int:
    size = rows * math.prod(shape) * np.dtype(dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT
