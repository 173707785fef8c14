"""The per-video store: one object for every video, with its segments, or with the outcome that it has instead.

Extraction commits the object once, in one step. Asking for it is the whole of resuming, retrying and running twice: who
loses the race to commit it goes on with what is there. An object ends with its table, so an unfinished one is never
read, and one request for its end gives the table. With the table, one more request reads a run of segments.
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
"""Bytes of a table, compressed or not; one of hours of video has a few kilobytes."""

_NOT_VALUES = (ValueError, TypeError, KeyError, AttributeError, zlib.error, msgpack.UnpackException)
"""What bytes raise that are sound by their sum and still not what was packed."""
"""Read from the end of an object in search of its table: enough for that of hours of video."""


class VideoStoreError(UserError):
    """A committed object is missing or damaged; the message names it."""


@dataclass(frozen=True)
class VideoTable:
    """What is known of a video that was worked on, and where its segments are in its object.

    `outcome` and `kind` are names of `shards.outcomes`, `detail` the sentence with what is special to this video,
    `scores` every number that a filter looked at. `config` is the digest of what it was made with, `spans` are the
    (offset, length, crc32c) of its segments, `cpu_seconds` what it cost, `at` when it was committed, in seconds since
    1970, `earlier` how it ended in an earlier generation, as `kind/outcome`, if it was tried again. `version` changes
    when one of the files does that it was made from.
    """

    text: VideoText
    config: str
    outcome: str
    kind: str
    detail: str = ""
    scores: dict[str, Any] = field(default_factory=dict)
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    at: float = 0.0
    earlier: str = ""
    version: str = ""

    @property
    def id(self) -> str:
        """The id of the video."""
        return self.text.video_id

    @property
    def segment_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(length for _, length, _ in self.spans)

    def pack(self) -> bytes:
        """The table as bytes, a few kilobytes: what travels through the job in the place of the video."""
        return zlib.compress(msgpack.packb(asdict(self)))

    @classmethod
    def unpack(cls, data: bytes) -> VideoTable:
        """Return the table behind the bytes. Raises `ValueError` for more than `MAX_TABLE_BYTES` of it."""
        inflater = zlib.decompressobj()
        packed = inflater.decompress(data, MAX_TABLE_BYTES)
        if not inflater.eof:
            raise ValueError(f"it is cut short, or has more than {MAX_TABLE_BYTES:,} bytes")
        values = msgpack.unpackb(packed)
        spans = [tuple(span) for span in values.pop("spans")]
        return cls(text=VideoText(**values.pop("text")), spans=spans, **values)


class VideoStore:
    """The per-video store of a data folder."""

    def __init__(self, data: str):
        self.folder = filesystem.join(data, "videos")

    def path(self, video_id: str) -> str:
        """Where a video's object is; any text is a safe id."""
        name = quote(video_id, safe=" ()[],'!&+=@~")
        if len(name) > 150:
            name = f"{name[:100]}~{digest(0, 'segments', video_id).hex()}"
        return filesystem.join(self.folder, digest(0, "segments", video_id).hex()[:2], name + _SUFFIX)

    def commit(self, table: VideoTable, contents: Iterable[Segment], replace: bool = False) -> VideoTable:
        """Write a video's object in one step and return its table, or the table of the object that is there already.

        The spans of `table` are not looked at. `replace` writes over an object that is there.
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
        """A video's table, or `None` if it is not committed. Raises `VideoStoreError` if the object is damaged."""
        return self._read(self.path(video_id))

    def get(self, video_id: str) -> VideoTable:
        """A video's table. Raises `VideoStoreError` if the video is not committed or its object is damaged."""
        table = self.find(video_id)
        if table is None:
            raise VideoStoreError(f"the segments of {video_id!r} are gone from the store; extract the video again")
        return table

    def at(self, path: str) -> VideoTable:
        """The table of the object at a path. Raises `VideoStoreError` if it is gone or damaged."""
        table = self._read(path)
        if table is None:
            raise _damaged(path)
        return table

    def paths(self) -> Iterator[str]:
        """The paths of all committed objects."""
        for name in filesystem.list_folders(self.folder):
            yield from filesystem.list_files(filesystem.join(self.folder, name), _SUFFIX)

    def read(self, table: VideoTable, first: int, stop: int) -> list[Segment]:
        """Segments `[first, stop)` of a video, by one request, each checked against its sum."""
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
            except _NOT_VALUES:
                raise _damaged(path) from None
        return read

    def remove(self, video_id: str) -> None:
        """Drop a video's object if it is there."""
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
        except _NOT_VALUES:
            raise _damaged(path) from None


def _damaged(path: str) -> VideoStoreError:
    return VideoStoreError(f"{path!r} is no longer an object of the per-video store; remove it and run again")
