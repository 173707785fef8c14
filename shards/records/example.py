"""The `tf.train.Example` message, written and read without TensorFlow.

A record is a flat map from feature name to a list of bytes, floats or integers. The wire format is protobuf's; features
are written in name order so that equal records are equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from shards.storage.errors import RecordError

Feature = list[bytes] | np.ndarray
"""`list[bytes]`, `float32 [n]` or `int64 [n]`."""

_BYTES, _FLOAT, _INT64 = 1, 2, 3
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def serialize(features: Mapping[str, Sequence[bytes] | np.ndarray]) -> bytes:
    """An Example of the features; a NumPy array's dtype (float or integer) chooses its list, anything else is bytes."""
    entries = b"".join(_entry(name, features[name]) for name in sorted(features))
    return _field(1, entries)


def parse(data: bytes) -> dict[str, Feature]:
    """The features of a serialised Example. Raises `RecordError` for anything that is not one."""
    try:
        features: dict[str, Feature] = {}
        for _, _, message in _fields(memoryview(data), {1: _LENGTH}):
            for _, _, entry in _fields(message, {1: _LENGTH}):
                parts = {number: value for number, _, value in _fields(entry, {1: _LENGTH, 2: _LENGTH})}
                features[str(parts.get(1, b""), "utf-8")] = _parse_feature(parts.get(2, memoryview(b"")))
        return features
    except (IndexError, ValueError, OverflowError) as error:
        raise RecordError(f"{len(data)} bytes are not a tf.train.Example: {error}") from None


def _entry(name: str, values: Sequence[bytes] | np.ndarray) -> bytes:
    if not isinstance(values, np.ndarray):
        feature = _field(_BYTES, b"".join(_field(1, value) for value in values))
    elif values.dtype.kind == "f":
        packed = values.astype("<f4").tobytes()
        feature = _field(_FLOAT, _field(1, packed) if packed else b"")
    else:
        packed = b"".join(map(_varint, values.tolist()))
        feature = _field(_INT64, _field(1, packed) if packed else b"")
    return _field(1, _field(1, name.encode()) + _field(2, feature))


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than ten bytes")


def _fields(data: memoryview, known: dict[int, int]):
    """Yields (number, wire type, value) of the known fields; skips others as protobuf does."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _LENGTH:
            length, at = _read_varint(data, at)
            stop = at + length
        elif wire == _VARINT:
            start = at
            _, stop = _read_varint(data, at)
            at = start
        elif wire in (_FIXED64, _FIXED32):
            stop = at + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"unknown wire type {wire}")
        if stop > len(data):
            raise ValueError("a field runs past the end")
        if number in known and (known[number] == wire or known[number] == -1):
            yield number, wire, data[at:stop]
        at = stop


def _parse_feature(data: memoryview) -> Feature:
    kinds = {_BYTES: _LENGTH, _FLOAT: _LENGTH, _INT64: _LENGTH}
    feature: Feature = []
    for kind, _, values in _fields(data, kinds):
        if kind == _BYTES:
            feature = [bytes(value) for _, _, value in _fields(values, {1: _LENGTH})]
        elif kind == _FLOAT:
            packed = b"".join(value for _, _, value in _fields(values, {1: -1}))
            feature = np.frombuffer(packed, "<f4").astype(np.float32)
        else:
            feature = _integers(b"".join(value for _, _, value in _fields(values, {1: -1})))
    return feature


def _integers(packed: bytes) -> np.ndarray:
    """`int64 [n]` of n packed varints, decoded all at once."""
    raw = np.frombuffer(packed, np.uint8)
    if raw.size == 0:
        return np.zeros(0, np.int64)
    last = raw < 0x80
    if not last[-1]:
        raise ValueError("a number runs past the end")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 9:
        raise ValueError("a number has more than ten bytes")
    place = np.arange(raw.size) - np.repeat(starts, ends - starts + 1)
    parts = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(parts, starts).view(np.int64)
