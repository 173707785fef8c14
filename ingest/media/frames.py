"""Decode the frames of a media file at given times.

The frame at time t is the first one whose time stamp is not before t, as with `ffmpeg -ss`, unless the frame before it
is shown for so long that it is still on the screen. Decoding starts at the last key frame before t. MP4 and Matroska
have an index of key frames and are seeked; other formats are demuxed from their beginning, without decoding the packets
before that key frame, because their seeks are estimates by byte position.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from jaxtyping import UInt8

from ingest.media.containers import CORRUPT_PACKETS, MediaError, demux, open_media, origin
from ingest.media.extent import HOLD_SECONDS, measure
from ingest.media.pictures import displayed_size, orientation
from ingest.media.tracks import MAX_PIXELS, picture_stream
from shards.outcomes import Outcome

_SEEK_MARGINS = (0.0, 2.0, 10.0, 60.0, float("inf"))
"""Seconds before t of successive seeks; the larger ones are for files with a wrong index, the last is the beginning."""

_INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""Formats with exact seeks."""

_BUFFERED_BYTES = 64 << 20
"""Maximum size of the packets that are buffered until it is known which of them must be decoded."""


def frames(path: str, times: Sequence[float]) -> Iterator[UInt8[np.ndarray, "h w 3"] | None]:
    """Yield the frame at each of `times`, which must not decrease; `None` for a time past the last frame.

    Frames are upright, have square pixels, and all have the size of the first one. Raises `MediaError`.
    """
    with contextlib.ExitStack() as files:
        cursor = _Cursor(path, files)
        for time in times:
            yield cursor.frame_at(time)


def _pts(frame: av.VideoFrame) -> int:
    """Return the time stamp of a frame around a target, which always has one."""
    assert frame.pts is not None
    return frame.pts


class _Cursor:
    """A position in a stream that only moves forward, by decoding or seeking, whichever is cheaper.

    `before` and `after` are the frames around the last target: the last one before it and the first one not before it.
    """

    def __init__(self, path: str, files: contextlib.ExitStack):
        self.path, self.files = path, files
        self.shape: tuple[int, int] | None = None
        self.hold_end: Fraction | None = None
        self.any_decoded = False
        self.problem: av.error.FFmpegError | None = None
        self._open()

    def _open(self, all_frames: bool = False) -> None:
        """Start at the beginning of the file; with `all_frames`, never jump to key frames from now on."""
        self.container = self.files.enter_context(open_media(self.path))
        stream = picture_stream(self.container)
        if stream is None:
            raise MediaError(Outcome.NO_PICTURE, f"{Path(self.path).name} has no video stream")
        if stream.time_base is None:
            raise MediaError(Outcome.MEDIA_UNREADABLE, f"{Path(self.path).name} has a video stream without a time base")
        self.stream, self.time_base = stream, stream.time_base
        # Videos are processed in parallel, and skipping frames needs decisions packet by packet.
        stream.codec_context.thread_count = 1
        # The size of frames may increase within a stream, too.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self.zero = origin(self.container)
        self.all_frames = all_frames
        self.indexed = self.container.format.name in _INDEXED and not all_frames
        self.sought = not self.indexed
        self._restart()

    def _restart(self) -> None:
        """Reset all state to the current position of the container."""
        self.packets = demux(self.container, [self.stream])
        self.demuxed = -(1 << 62)
        self.buffer: deque[av.Packet] = deque()
        self.buffered = 0
        self.needed: int | None = None
        self.jumped = False
        self.fed = False
        self._forget()

    def _forget(self) -> None:
        """Drop decoded frames before decoding continues at another position."""
        self.pending: deque[av.VideoFrame] = deque()
        self.before: av.VideoFrame | None = None
        self.after: av.VideoFrame | None = None

    def frame_at(self, time: float) -> UInt8[np.ndarray, "h w 3"] | None:
        """Return the frame at `time`, or `None` past the last frame."""
        # ffmpeg rounds times to milliseconds, and so do the published shards.
        target = math.ceil((Fraction(round(time * 1000), 1000) + self.zero) / self.time_base)
        if self.after is None or _pts(self.after) < target:
            self._move(target)
        if self.problem and not self.any_decoded:
            name = Path(self.path).name
            raise MediaError(Outcome.MEDIA_UNREADABLE, f"{name}: none of its frames can be decoded: {self.problem}")
        frame = self._shown(target)
        return self._rgb(frame) if frame else None

    def _shown(self, target: int) -> av.VideoFrame | None:
        """Return the one of the two frames around the target that is shown at it."""
        before, after = self.before, self.after
        if after is None:
            return before if before is not None and target < self._end_of_hold(before) else None
        holds = before is not None and self._long(_pts(after) - _pts(before))
        return before if holds and _pts(after) > target else after

    def _long(self, ticks: int) -> bool:
        return ticks * self.time_base > HOLD_SECONDS

    def _end_of_hold(self, last: av.VideoFrame) -> Fraction:
        """Return the end of the stream's last frame in ticks; its time stamp if it is not shown for long."""
        if self.hold_end is None:
            duration = last.duration or 0
            self.hold_end = Fraction(_pts(last) + (duration if self._long(duration) else 0))
            extent = measure(self.path)
            if extent.picture_holds and extent.end is not None:
                self.hold_end = max(self.hold_end, (Fraction(extent.end) + self.zero) / self.time_base)
        return self.hold_end

    def _rgb(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """Convert to RGB, upright and in the size of the first frame: a stream may change its size."""
        turn = orientation(frame)
        if self.shape is None:
            aspect = self.stream.sample_aspect_ratio or self.stream.codec_context.sample_aspect_ratio
            width, height = displayed_size(frame.width, frame.height, aspect)
            self.shape = (width, height) if turn.transposed else (height, width)
        height, width = self.shape[::-1] if turn.transposed else self.shape
        return turn.apply(frame.to_ndarray(format="rgb24", width=width, height=height))

    def _move(self, target: int) -> None:
        """Set `before` and `after` for a target later than the last one."""
        if self.indexed and not self._near(target):
            self._seek(target)
            return
        self._advance(target)
        if self.jumped and not self._proved(target):
            self._read_all(target)

    def _read_all(self, target: int) -> None:
        """Decode from the beginning of the file, because the key frames that were jumped to are not valid."""
        self._open(all_frames=True)
        self._advance(target)

    def _proved(self, target: int) -> bool:
        """Return whether `after` is known to be the first frame not before the target."""
        return self.before is not None or (self.after is not None and self.after.pts == target)

    def _near(self, target: int) -> bool:
        """Return whether decoding reaches `target` without passing a key frame that a seek could jump to."""
        if not self.sought:
            return False
        entries = self.stream.index_entries
        key = entries.search_timestamp(target, backward=True) if len(entries) else -1
        return key >= 0 and entries[key].timestamp <= self.demuxed

    def _seek(self, target: int) -> None:
        """Jump to a key frame before `target`; if a wrong index has it after the target, try further back."""
        first_pts = self.stream.start_time or 0
        self.sought = True
        for margin in _SEEK_MARGINS:
            back = target - margin / float(self.time_base)
            at_start = back <= first_pts
            with contextlib.suppress(av.error.FFmpegError):
                self.container.seek(first_pts if at_start else int(back), stream=self.stream, backward=True)
            self._restart()
            self.all_frames = margin > 0
            self._advance(target)
            if self._proved(target) or (at_start and self.after is not None):
                self.all_frames = False
                return
        self._read_all(target)

    def _advance(self, target: int) -> None:
        """Decode up to the first frame not before the target."""
        if self.after is not None:
            self.pending.appendleft(self.after)
            self.after = None
        self._fill(target)
        while True:
            while self.pending:
                frame = self.pending.popleft()
                if frame.pts is not None and frame.pts >= target:
                    self.after = frame
                    return
                self.before = self.before if frame.pts is None else frame
            if not self._decode(target):
                return

    def _fill(self, target: int) -> None:
        """Demux packets until no later one can be shown before the target, and drop those that need no decoding."""
        while self.demuxed <= target and self.buffered <= _BUFFERED_BYTES:
            packet = next(self.packets, None)
            if packet is None:
                break
            if packet.dts is not None:
                self.demuxed = packet.dts
            if packet.is_keyframe and packet.pts is not None and packet.pts <= target and not self.all_frames:
                self._jump()
            self.buffer.append(packet)
            self.buffered += packet.size
        earlier = max((p.pts for p in self.buffer if p.pts is not None and p.pts < target), default=None)
        later = min((p.pts for p in self.buffer if p.pts is not None and p.pts >= target), default=None)
        between = earlier is None or (later is not None and not self._long(later - earlier))
        self.needed = None if between else earlier

    def _jump(self) -> None:
        """Continue decoding at the key frame that was demuxed last."""
        if self.fed:
            self.stream.codec_context.flush_buffers()
        self.jumped |= self.fed or bool(self.buffer)
        self.fed = False
        self.buffer.clear()
        self.buffered = 0
        self._forget()

    def _decode(self, target: int) -> bool:
        """Decode packets until frames are pending; return false at the end of the stream."""
        failures = 0
        while failures <= CORRUPT_PACKETS:
            if self.buffered > _BUFFERED_BYTES or not self.buffer:
                self._fill(target)
            if not self.buffer:
                return False
            packet = self.buffer.popleft()
            self.buffered -= packet.size
            self.fed = True
            # Frames before the target that no other frame refers to need not be decoded.
            spare = packet.pts is not None and packet.pts < target and packet.pts != self.needed
            self.stream.codec_context.skip_frame = "NONREF" if spare else "DEFAULT"
            try:
                self.pending.extend(packet.decode())
            except MemoryError:
                raise
            except av.error.EOFError:
                continue
            except av.error.FFmpegError as error:
                failures += 1
                self.problem = error
            if self.pending:
                self.any_decoded = True
                return True
        return False
