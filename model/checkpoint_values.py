"""The values in the bytes of a Flax msgpack checkpoint: arrays of real numbers in nested dictionaries, nothing else.

Every count, size and type in the bytes is checked before memory is allocated for it.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

MAX_LEVELS = 32
"""Nested dictionaries; the published trees have seven."""

MAX_VALUES = 100_000
"""Values in all dictionaries; the published trees have under 1,000."""

_NAMES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TYPES = {name: np.dtype(name) for name in (*_NAMES, "bool")} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}
_MAX_DIMENSIONS = 8
_MAX_ENTRIES = 2048
_MAX_NAME_BYTES = 4096
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3


class ValuesError(ValueError):
    """Bytes are not the values of a checkpoint; the message says why."""


def loads(data: bytes) -> Any:
    """Return the values in the bytes, with None for an array that is not of real numbers. Raises `ValuesError`."""
    entries = 0

    def dictionary(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        nonlocal entries
        entries += len(pairs)
        if entries > MAX_VALUES:
            raise ValuesError(f"it has more than {MAX_VALUES:,} values")
        return dict(pairs)

    try:
        values = msgpack.unpackb(
            data,
            ext_hook=_array,
            object_pairs_hook=dictionary,
            raw=False,
            strict_map_key=False,
            max_map_len=_MAX_ENTRIES,
            max_array_len=_MAX_ENTRIES,
            max_str_len=_MAX_NAME_BYTES,
            max_bin_len=_MAX_NAME_BYTES,
        )
    except ValuesError:
        raise
    # The library raises errors of its own and of Python for damaged bytes.
    except Exception as error:  # noqa: BLE001
        raise ValuesError(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from None
    level = [values]
    for _ in range(MAX_LEVELS):
        level = [inner for outer in level if isinstance(outer, dict) for inner in outer.values()]
        if not level:
            return values
    raise ValuesError(f"it has more than {MAX_LEVELS} levels")


def _array(code: int, data: bytes) -> np.ndarray | None:
    """Return the array of an extension value: its shape, the name of its type, its bytes. None for another type."""
    if code == _COMPLEX:
        return None
    if code not in (_ARRAY, _SCALAR):
        raise ValuesError(f"it has a value of the type {code}, which is not an array")
    shape, name, content = msgpack.unpackb(data, raw=False, max_array_len=_MAX_DIMENSIONS, max_map_len=0)
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        return None
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValuesError("it has an array without a shape")
    if not isinstance(content, bytes) or math.prod(shape) * kind.itemsize != len(content):
        raise ValuesError(f"it has an array of the shape {shape} and {name}, whose bytes do not fit")
    return np.frombuffer(content, kind).reshape(shape)
