"""A segment, the unit that everything is made of, and the store where each video's segments wait to be packed.

Extraction commits one file per video, in one step; packing then refers to segments as (video, first, stop) and the
shard writer reads just those byte ranges. A file ends with its table of contents, so an unfinished one is never read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

import google_crc32c
import msgpack
import numpy as np

from shards import filesystem
from shards.errors import UserError
from shards.randomness import digest

_MAGIC = b"RSVSEG1\n"
_TRAILER = struct.Struct("<QI8s")
_SUFFIX = ".segments"


class SegmentStoreError(UserError):
    """A committed file is damaged; the message names it."""


@dataclass(frozen=True)
class Segment:
    """Five played seconds: one frame, their sound and their words.

    `image` is a baseline JPEG, `spectrogram` a grey JPEG of 64 mel bands by 188 columns whose log-mel values are
    pixel / `magic`. `tokens` has one id per token, `token_starts` and `token_ends` its word's times in played seconds
    from the segment's start. `start` and `end` are seconds of the video.
    """

    start: float
    end: float
    speed: int
    image: bytes
    width: int
    height: int
    spectrogram: bytes
    magic: float
    tokens: np.ndarray
    token_starts: np.ndarray
    token_ends: np.ndarray


@dataclass(frozen=True)
class VideoText:
    """What is known of a whole video: token ids of title, tags and description, and `meta`, a JSON object."""

    video_id: str
    title: list[int] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)
    description: list[int] = field(default_factory=list)
    meta: str = "{}"


@dataclass(frozen=True)
class CommittedVideo:
    """A video's table of contents: its text, its scores, and the (offset, length, crc32c) of every segment."""

    text: VideoText
    config_digest: str
    scores: dict[str, Any]
    spans: list[tuple[int, int, int]]


def segments_folder(data: str) -> str:
    """Where the store of a data folder is."""
    return filesystem.join(data, "segments")


class SegmentStore:
    """The folder of committed videos."""

    def __init__(self, folder: str):
        self.folder = folder

    def path(self, video_id: str) -> str:
        """Where a video's file is; any text is a safe id."""
        name = quote(video_id, safe=" ()[],'!&+=@~")
        if len(name) > 150:
            name = f"{name[:100]}~{digest(0, 'segments', video_id).hex()}"
        return filesystem.join(self.folder, digest(0, "segments", video_id).hex()[:2], name + _SUFFIX)

    def commit(
        self, text: VideoText, segments: Iterable[Segment], config_digest: str, scores: dict[str, Any]
    ) -> CommittedVideo:
        """Write a video's segments in one step and return its table of contents."""
        spans = []
        with filesystem.create(self.path(text.video_id)) as file:
            file.write(_MAGIC)
            offset = len(_MAGIC)
            for segment in segments:
                blob = _pack_segment(segment)
                file.write(blob)
                spans.append((offset, len(blob), google_crc32c.value(blob)))
                offset += len(blob)
            table = msgpack.packb({"text": asdict(text), "config": config_digest, "scores": scores, "spans": spans})
            file.write(table)
            file.write(_TRAILER.pack(len(table), google_crc32c.value(table), _MAGIC))
        return CommittedVideo(text, config_digest, scores, spans)

    def find(self, video_id: str) -> CommittedVideo | None:
        """A video's table of contents, or `None` if it is not committed. Raises `SegmentStoreError` if damaged."""
        path = self.path(video_id)
        if not filesystem.exists(path):
            return None
        size = filesystem.size(path)
        length, crc, magic = _TRAILER.unpack(_exactly(path, size - _TRAILER.size, _TRAILER.size))
        if magic != _MAGIC or length > size:
            raise SegmentStoreError(f"{path!r} is not a file of committed segments; remove it and run again")
        table = _exactly(path, size - _TRAILER.size - length, length)
        if google_crc32c.value(table) != crc:
            raise SegmentStoreError(f"the table of contents of {path!r} is damaged; remove the file and run again")
        held = msgpack.unpackb(table)
        spans = [tuple(span) for span in held["spans"]]
        return CommittedVideo(VideoText(**held["text"]), held["config"], held["scores"], spans)

    def get(self, video_id: str) -> CommittedVideo:
        """A video's table of contents. Raises `SegmentStoreError` if it is not committed or damaged."""
        video = self.find(video_id)
        if video is None:
            raise SegmentStoreError(f"the segments of {video_id!r} are gone from the store; extract the video again")
        return video

    def read(self, video: CommittedVideo, first: int, stop: int) -> list[Segment]:
        """Segments `[first, stop)` of a video, each checked against its sum."""
        path = self.path(video.text.video_id)
        spans = video.spans[first:stop]
        start = spans[0][0]
        data = _exactly(path, start, spans[-1][0] + spans[-1][1] - start)
        segments = []
        for offset, length, crc in spans:
            blob = data[offset - start : offset - start + length]
            if google_crc32c.value(blob) != crc:
                raise SegmentStoreError(f"the segment at byte {offset} of {path!r} is damaged; remove the file")
            segments.append(_unpack_segment(blob))
        return segments

    def remove(self, video_id: str) -> None:
        """Drop a video's file if it is there."""
        filesystem.remove(self.path(video_id))


def _exactly(path: str, start: int, length: int) -> bytes:
    data = filesystem.read_bytes(path, start, length) if start >= 0 else b""
    if len(data) != length:
        raise SegmentStoreError(f"{path!r} ends too early; remove it and run again")
    return data


def _pack_segment(segment: Segment) -> bytes:
    values = dict(vars(segment))
    values["tokens"] = segment.tokens.astype("<i4").tobytes()
    values["token_starts"] = segment.token_starts.astype("<f4").tobytes()
    values["token_ends"] = segment.token_ends.astype("<f4").tobytes()
    return msgpack.packb(values)


def _unpack_segment(blob: bytes) -> Segment:
    values = msgpack.unpackb(blob)
    values["tokens"] = np.frombuffer(values["tokens"], "<i4")
    values["token_starts"] = np.frombuffer(values["token_starts"], "<f4")
    values["token_ends"] = np.frombuffer(values["token_ends"], "<f4")
    return Segment(**values)
