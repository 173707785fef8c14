"""Checks for users' own readers and parsers, to be called from their tests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np


class ResumableReader(Protocol):
    """An iterator of batches with a state, such as `shards.reader.Reader`."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """Return the next batch."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Return the position as values that JSON can hold."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a position."""
        ...

    def close(self) -> None:
        """Release processes, threads and memory."""
        ...


def check_resumes(open_reader: Callable[[], ResumableReader], batches: int = 8) -> None:
    """Check that a reader continues from each of its states with the batches that an uninterrupted one returns.

    `open_reader` opens a new reader at its beginning. Reads `batches` batches once, then restores every state that was
    saved on the way, after a round trip through JSON, in a reader of its own, and compares all later batches bit for
    bit. Costs about `batches ** 2 / 2` batches. A reader of one pass may end earlier, but must have two batches. Raises
    `AssertionError` naming the first batch and array that differ, or what a state holds that JSON cannot.

        def test_my_reader_resumes():
            check_resumes(lambda: Reader("data", MyParser(), batch_size=4, seed=0))
    """
    states: list[str] = []
    expected: list[dict[str, np.ndarray]] = []
    with contextlib.closing(open_reader()) as reader:
        for number in range(batches):
            states.append(_encoded(reader.state(), number))
            try:
                expected.append(_copied(next(reader)))
            except StopIteration:
                break
    if len(expected) < 2:
        raise AssertionError(f"the reader has {len(expected)} batches; a check of resuming needs at least 2")
    for first in range(1, len(expected)):
        with contextlib.closing(open_reader()) as reader:
            reader.restore(json.loads(states[first]))
            for number in range(first, len(expected)):
                where = f"batch {number} of a reader restored before batch {first}"
                try:
                    batch = next(reader)
                except StopIteration:
                    raise AssertionError(f"{where} is missing: the reader ended too early") from None
                _compare(batch, expected[number], where)


def _encoded(state: Mapping[str, Any], number: int) -> str:
    try:
        return json.dumps(state)
    except TypeError as error:
        raise AssertionError(f"the state before batch {number} cannot be stored as JSON: {error}") from None


def _copied(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    # A reader may reuse the memory of a batch for the next one.
    return {name: np.array(array) for name, array in batch.items()}


def _compare(batch: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], where: str) -> None:
    if batch.keys() != expected.keys():
        raise AssertionError(f"{where} has the arrays {sorted(batch)}, not {sorted(expected)}")
    for name, array in expected.items():
        other = np.asarray(batch[name])
        if (other.shape, other.dtype) != (array.shape, array.dtype):
            raise AssertionError(f"{where}: {name!r} is {other.dtype} {other.shape}, not {array.dtype} {array.shape}")
        if other.tobytes() != array.tobytes():
            rows = [row for row in range(len(array)) if other[row].tobytes() != array[row].tobytes()]
            raise AssertionError(f"{where}: {name!r} differs in the rows {rows[:8]}")
