"""Write figures as TensorBoard event files, on a disk or in a bucket.

An event file is a TFRecord file of protobuf messages. The maintained writers come with TensorFlow or PyTorch, which
training must not load.

TensorBoard reads the files of a folder in the order of their names, follows the last one as it grows, and never returns
to an earlier one. On a disk a run appends to one file. Objects in a bucket cannot be appended to: there the newest
events are uploaded as a whole every minute, and once they are a megabyte, the next object begins.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.records.tfrecord import frame
from shards.storage import filesystem
from shards.storage.errors import StorageError
from train.metrics.event_messages import SESSION_START, Event

_UPLOAD_SECONDS = 60.0
_OBJECT_BYTES = 1 << 20
"""Largest upload of a minute; an object contains some thousand lines of figures."""


class EventFiles:
    """Write the events of a run from a step on into a folder. Raises `StorageError` if they cannot be written."""

    def __init__(self, folder: str, step: int):
        """Start a file; `step` is where the run continues; later steps in other files of the folder are void."""
        # Nanoseconds: a process in a container has the same number at every start, and replaces nothing that way.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        kind = _Objects if filesystem.is_remote(folder) else _LocalFile
        self._file = kind(filesystem.join(folder, name), _record(Event(file_version="brain.Event:2")))
        # At a start TensorBoard forgets this step and later ones of earlier files.
        self._file.append(_record(Event(step=step + 1, session_log={"status": SESSION_START})))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add the metrics of a step."""
        values = [{"tag": name, "simple_value": value} for name, value in figures.items()]
        self._file.append(_record(Event(step=step, summary={"value": values})))

    def close(self) -> None:
        """Store what is not stored yet."""
        self._file.close()


class _LocalFile:
    """Append to one file."""

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
        """Do nothing: everything is in the file already."""


class _Objects:
    """Write numbered objects, of which the last one is replaced by a longer one every minute."""

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


def _record(event: Any) -> bytes:
    """Return an event of this moment, framed as a record."""
    event.wall_time = time.time()
    return frame(event.SerializeToString())
