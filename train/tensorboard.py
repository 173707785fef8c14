"""Figures as a TensorBoard event file, written by hand.

An event file is a TFRecord file of small protocol buffers, and scalars need five fields of them. The kept writers come
with TensorFlow, PyTorch or an unkept package, none of which training may or need load.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from shards.errors import StorageError
from shards.tfrecord import frame

_DOUBLE, _BYTES, _FLOAT = 1, 2, 5
"""Wire types of protocol buffers; 0 is a variable-length integer."""
_WALL_TIME, _STEP, _VERSION, _SUMMARY, _SESSION = 1, 2, 3, 5, 7
"""Fields of an event."""
_START = b"\x08\x01"
"""A session log with status START, at which TensorBoard forgets later steps of earlier files."""


class EventFile:
    """A new event file in a local folder. Raises `StorageError` if it cannot be written."""

    def __init__(self, folder: str, step: int):
        """`step` is where the run goes on; what other files of the folder say of later steps is void."""
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._path = Path(folder) / name
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write {folder!r}: {error.strerror}") from error
        self._append(_bytes(_VERSION, b"brain.Event:2"))
        self._append(_varint(_STEP, step) + _bytes(_SESSION, _START))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the figures of a step."""
        values = (_bytes(1, name.encode()) + _key(2, _FLOAT) + struct.pack("<f", v) for name, v in figures.items())
        self._append(_varint(_STEP, step) + _bytes(_SUMMARY, b"".join(_bytes(1, value) for value in values)))

    def _append(self, event: bytes) -> None:
        stamped = _key(_WALL_TIME, _DOUBLE) + struct.pack("<d", time.time()) + event
        try:
            with self._path.open("ab") as file:
                file.write(frame(stamped))
        except OSError as error:
            raise StorageError(f"cannot write {str(self._path)!r}: {error.strerror}") from error


def _key(field: int, wire_type: int) -> bytes:
    return bytes([field << 3 | wire_type])


def _number(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _varint(field: int, value: int) -> bytes:
    return _key(field, 0) + _number(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, _BYTES) + _number(len(content)) + content
