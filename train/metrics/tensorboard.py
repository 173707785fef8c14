"""Figures as TensorBoard event files, written by hand, on a disk or in a bucket.

An event file is a TFRecord file of small protocol buffers, and scalars need five fields of them. The maintained writers
come with TensorFlow, PyTorch or an abandoned package, none of which training may or need load.

TensorBoard reads the files of a folder in the order of their names, follows the last one as it grows, and never returns
to an earlier one. On a disk a run appends to one file. Objects in a bucket cannot be appended to: there the newest
events are uploaded as a whole every minute, and once they are a megabyte, the next object begins.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from shards.records.tfrecord import frame
from shards.storage import filesystem
from shards.storage.errors import StorageError

_DOUBLE, _BYTES, _FLOAT = 1, 2, 5
"""Wire types of protocol buffers; 0 is a variable-length integer."""
_WALL_TIME, _STEP, _VERSION, _SUMMARY, _SESSION = 1, 2, 3, 5, 7
"""Fields of an event."""
_START = b"\x08\x01"
"""A session log with status START, at which TensorBoard forgets its step and later ones of earlier files."""
_UPLOAD_SECONDS = 60.0
_OBJECT_BYTES = 1 << 20
"""What is uploaded again every minute at most; an object holds some thousand lines of figures."""


class EventFiles:
    """The events of a run from a step on, in a folder. Raises `StorageError` if they cannot be written."""

    def __init__(self, folder: str, step: int):
        """`step` is where the run goes on; what other files of the folder say of later steps is void."""
        # Nanoseconds: a process in a container has the same number at every start, and replaces nothing that way.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        start = _varint(_STEP, step + 1) + _bytes(_SESSION, _START)
        kind = _Objects if filesystem.is_remote(folder) else _LocalFile
        self._file = kind(filesystem.join(folder, name), _event(_bytes(_VERSION, b"brain.Event:2")))
        self._file.append(_event(start))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the figures of a step."""
        values = (_bytes(1, name.encode()) + _key(2, _FLOAT) + struct.pack("<f", v) for name, v in figures.items())
        summary = b"".join(_bytes(1, value) for value in values)
        self._file.append(_event(_varint(_STEP, step) + _bytes(_SUMMARY, summary)))

    def close(self) -> None:
        """Store what is not stored yet."""
        self._file.close()


class _LocalFile:
    """One file that grows."""

    def __init__(self, path: str, header: bytes):
        self._path = Path(path)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write {str(self._path.parent)!r}: {error.strerror}") from error
        self.append(header)

    def append(self, record: bytes) -> None:
        """Add a record; it is in the file when this returns."""
        try:
            with self._path.open("ab") as file:
                file.write(record)
        except OSError as error:
            raise StorageError(f"cannot write {str(self._path)!r}: {error.strerror}") from error

    def close(self) -> None:
        """Everything is in the file already."""


class _Objects:
    """Numbered objects, of which the last one is replaced by a longer one every minute."""

    def __init__(self, path: str, header: bytes):
        self._path, self._header = path, header
        self._number, self._content = 0, bytearray(header)
        self._uploaded_at = float("-inf")

    def append(self, record: bytes) -> None:
        """Add a record; it is uploaded with the first one that comes a minute after the last upload."""
        if len(self._content) + len(record) > _OBJECT_BYTES:
            # Complete before the next one appears, because TensorBoard does not come back to it.
            self._upload()
            self._number += 1
            self._content = bytearray(self._header)
        self._content += record
        if time.monotonic() - self._uploaded_at >= _UPLOAD_SECONDS:
            self._upload()

    def close(self) -> None:
        """Upload the last object."""
        self._upload()

    def _upload(self) -> None:
        filesystem.write_bytes(f"{self._path}.{self._number:06d}", bytes(self._content))
        self._uploaded_at = time.monotonic()


def _event(fields: bytes) -> bytes:
    """An event of this moment, framed as a record."""
    return frame(_key(_WALL_TIME, _DOUBLE) + struct.pack("<d", time.time()) + fields)


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
