"""The interface of record parsers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

Arrays = dict[str, np.ndarray]
Streams = Callable[[str], np.random.Generator]
"""Returns the random generator of one record in one epoch for a named purpose."""
Spec = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and dtype of every array of one example."""


class RecordParser(Protocol):
    """Parses the bytes of one record into arrays."""

    def spec(self) -> Spec:
        """Return shape and dtype of every array of one example."""
        ...

    def __call__(self, payload: bytes, streams: Streams, out: Arrays) -> Mapping[str, int]:
        """Fill the arrays of one example and return counts by name. Raises `RecordError` if the record is damaged."""
        ...
