"""The interface of what turns the bytes of a record into arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

Arrays = dict[str, np.ndarray]
Streams = Callable[[str], np.random.Generator]
"""A generator for each named purpose, of one record in one epoch."""
Spec = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and type of every array of one example."""


class RecordParser(Protocol):
    """What turns the bytes of one record into arrays."""

    def spec(self) -> Spec:
        """Shape and type of every array of one example."""

    def __call__(self, payload: bytes, streams: Streams, out: Arrays) -> Mapping[str, int]:
        """Fill the arrays of one example and count what happened. Raises `RecordError` if the record is damaged."""
