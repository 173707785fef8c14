"""The per-video store: one object per video, with its segments or with its outcome.

Extraction commits the object once, atomically. Looking it up implements resuming, retrying and running twice: a process
that loses the race to commit an object continues with the existing one. An object ends with its table, so an unfinished
one is never read, and one request for its end returns the table. One more request reads a run of segments.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

import google_crc32c
import msgpack

from shards.records import segments
from shards.records.segments import Segment, VideoText
from shards.storage import filesystem
from shards.storage.errors import ExistsError, UserError
from shards.storage.randomness import digest

_MAGIC = b"RSVVID1\n"
_TRAILER = struct.Struct("<QI8s")
_SUFFIX = ".video"
_END_BYTES = 1 << 16
MAX_TABLE_BYTES = 64 << 20
"""Maximum size of a table, compressed or not; the table of hours of video has a few kilobytes."""

_INVALID = (ValueError, TypeError, KeyError, AttributeError, zlib.error, msgpack.UnpackException)
"""Exceptions of unpacking bytes whose checksum is right but whose content is not valid."""


class VideoStoreError(UserError):
    """A committed object is missing or damaged; the message names it."""


@dataclass(frozen=True)
class VideoTable:
    """The outcome of a processed video, and the positions of its segments in its object."""

    text: VideoText
    config: str
    """Digest of the config that the video was extracted with."""
    outcome: str
    """A name of `shards.outcomes.Outcome`."""
    kind: str
    """A name of `shards.outcomes.Kind`."""
    detail: str = ""
    """A sentence with the details of this video."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Every number that a filter evaluated."""
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    """(offset, length, crc32c) of each segment."""
    cpu_seconds: float = 0.0
    """CPU time spent on the video."""
    at: float = 0.0
    """Time of the commit, in seconds since 1970."""
    earlier: str = ""
    """The outcome in an earlier generation, as `kind/outcome`, if the video was retried."""
    version: str = ""
    """Changes when one of the input files does."""

    @property
    def id(self) -> str:
        """The id of the video."""
        return self.text.video_id

    @property
    def segment_bytes(self) -> int:
        """Total size of the segments in bytes."""
        return sum(length for _, length, _ in self.spans)

    def pack(self) -> bytes:
        """Serialize the table to a few kilobytes; pipelines pass tables instead of segments."""
        # `packb` always returns bytes; the annotation is inferred from the pure Python implementation.
        return zlib.compress(msgpack.packb(asdict(self)))  # pyright: ignore[reportArgumentType]

    @classmethod
    def unpack(cls, data: bytes) -> VideoTable:
        """Deserialize a table. Raises `ValueError` if it has more than `MAX_TABLE_BYTES`."""
        inflater = zlib.decompressobj()
        packed = inflater.decompress(data, MAX_TABLE_BYTES)
        if not inflater.eof:
            raise ValueError(f"it is truncated, or has more than {MAX_TABLE_BYTES:,} bytes")
        values = msgpack.unpackb(packed)
        spans = [tuple(span) for span in values.pop("spans")]
        return cls(text=VideoText(**values.pop("text")), spans=spans, **values)


class VideoStore:
    """The per-video store of a data folder."""

    def __init__(self, data: str):
        self.folder = filesystem.join(data, "videos")

    def path(self, video_id: str) -> str:
        """Return the path of a video's object; any string is a safe id."""
        name = quote(video_id, safe=" ()[],'!&+=@~")
        if len(name) > 150:
            name = f"{name[:100]}~{digest(0, 'segments', video_id).hex()}"
        return filesystem.join(self.folder, digest(0, "segments", video_id).hex()[:2], name + _SUFFIX)

    def commit(self, table: VideoTable, contents: Iterable[Segment], replace: bool = False) -> VideoTable:
        """Write a video's object atomically and return its table, or the table of an existing object.

        The spans of `table` are ignored. `replace` overwrites an existing object.
        """
        path = self.path(table.id)
        try:
            with filesystem.create(path) if replace else filesystem.create_new(path) as file:
                file.write(_MAGIC)
                offset, spans = len(_MAGIC), []
                for segment in contents:
                    blob = segments.pack(segment)
                    file.write(blob)
                    spans.append((offset, len(blob), google_crc32c.value(blob)))
                    offset += len(blob)
                written = VideoTable(**{**vars(table), "spans": spans})
                packed = written.pack()
                file.write(packed)
                file.write(_TRAILER.pack(len(packed), google_crc32c.value(packed), _MAGIC))
        except ExistsError:
            return self.get(table.id)
        return written

    def find(self, video_id: str) -> VideoTable | None:
        """Return a video's table, or `None` if it is not committed.

        Raises `VideoStoreError` if the object is damaged.
        """
        return self._read(self.path(video_id))

    def get(self, video_id: str) -> VideoTable:
        """Return a video's table. Raises `VideoStoreError` if it is not committed or its object is damaged."""
        table = self.find(video_id)
        if table is None:
            raise VideoStoreError(f"the segments of {video_id!r} are not in the store; extract the video again")
        return table

    def at(self, path: str) -> VideoTable:
        """Return the table of the object at a path. Raises `VideoStoreError` if it is missing or damaged."""
        table = self._read(path)
        if table is None:
            raise _damaged(path)
        return table

    def paths(self) -> Iterator[str]:
        """Yield the paths of all committed objects."""
        for name in filesystem.list_folders(self.folder):
            yield from filesystem.list_files(filesystem.join(self.folder, name), _SUFFIX)

    def read(self, table: VideoTable, first: int, stop: int) -> list[Segment]:
        """Return the segments `[first, stop)` of a video, read in one request and checked against their checksums."""
        path = self.path(table.id)
        spans = table.spans[first:stop]
        start, length = spans[0][0], spans[-1][0] + spans[-1][1] - spans[0][0]
        data = filesystem.read_bytes(path, start, length)
        if len(data) != length:
            raise _damaged(path)
        read = []
        for offset, size, crc in spans:
            blob = data[offset - start : offset - start + size]
            if google_crc32c.value(blob) != crc:
                raise VideoStoreError(f"the segment at byte {offset} of {path!r} is damaged; remove the file")
            try:
                read.append(segments.unpack(blob))
            except _INVALID:
                raise _damaged(path) from None
        return read

    def remove(self, video_id: str) -> None:
        """Remove a video's object if it exists."""
        filesystem.remove(self.path(video_id))

    def _read(self, path: str) -> VideoTable | None:
        end = filesystem.read_end(path, _END_BYTES)
        if end is None:
            return None
        if len(end) < _TRAILER.size:
            raise _damaged(path)
        length, crc, magic = _TRAILER.unpack(end[-_TRAILER.size :])
        if magic != _MAGIC or length > MAX_TABLE_BYTES:
            raise _damaged(path)
        if length + _TRAILER.size > len(end) == _END_BYTES:
            end = filesystem.read_end(path, length + _TRAILER.size) or b""
        packed = end[-_TRAILER.size - length : -_TRAILER.size]
        if len(packed) != length or google_crc32c.value(packed) != crc:
            raise _damaged(path)
        try:
            return VideoTable.unpack(packed)
        except _INVALID:
            raise _damaged(path) from None


def _damaged(path: str) -> VideoStoreError:
    return VideoStoreError(f"{path!r} is not a valid object of the per-video store; remove it and run again")
