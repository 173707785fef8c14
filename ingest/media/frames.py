"""Frames of a media file at given times.

The frame at time t is the first one whose time stamp is not before t, as `ffmpeg -ss` picks it, unless the picture
before it is shown for so long that it is what is on the screen. Decoding starts at the last key frame before t. MP4 and
Matroska have an index of key frames and are sought; other formats are read through from their beginning, without
decoding what lies before that key frame, because their seeks are guesses by byte position.
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

from ingest.media.containers import CORRUPT_PACKETS, MediaError, demux, open_media, origin
from ingest.media.extent import HOLD_SECONDS, measure
from ingest.media.pictures import displayed_size, orientation
from ingest.media.tracks import MAX_PIXELS, picture_stream
from shards.outcomes import Outcome

_SEEK_MARGINS = (0.0, 2.0, 10.0, 60.0, float("inf"))
"""Seconds before t at which a seek is tried; a file whose index lies needs the later ones, at last its beginning."""

_INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""Formats whose seeks are exact."""

_BUFFERED_BYTES = 64 << 20
"""Bytes of packets kept back until it is known which of them must be decoded."""


def frames(path: str, times: Sequence[float]) -> Iterator[np.ndarray | None]:
    """Yield the frame for each of `times`, which must not decrease; `None` for a time past the last frame.

    Frames are upright, with square pixels, and all of the first one's size. Raises `MediaError`.
    """
    with contextlib.ExitStack() as files:
        cursor = _Cursor(path, files)
        for time in times:
            yield cursor.frame_at(time)


class _Cursor:
    """A position in a stream that only moves forward, decoding or seeking, whichever is less.

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
        """Start at the beginning of the file; `all_frames` forbids to jump to key frames from now on."""
        self.container = self.files.enter_context(open_media(self.path))
        stream = picture_stream(self.container)
        if stream is None:
            raise MediaError(Outcome.NO_PICTURE, f"{Path(self.path).name} has no video stream")
        self.stream = stream
        # Parallelism comes from videos, and skipping frames on the way needs decisions packet by packet.
        stream.codec_context.thread_count = 1
        # Pictures may grow in mid-stream, too.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self.zero = origin(self.container)
        self.all_frames = all_frames
        self.indexed = self.container.format.name in _INDEXED and not all_frames
        self.sought = not self.indexed
        self._restart()

    def _restart(self) -> None:
        """Read from where the container is."""
        self.packets = demux(self.container, [self.stream])
        self.demuxed = -(1 << 62)
        self.buffer: deque[av.Packet] = deque()
        self.buffered = 0
        self.needed: int | None = None
        self.jumped = False
        self.fed = False
        self._forget()

    def _forget(self) -> None:
        """Drop what was decoded, before decoding goes on somewhere else."""
        self.pending: deque[av.VideoFrame] = deque()
        self.before: av.VideoFrame | None = None
        self.after: av.VideoFrame | None = None

    def frame_at(self, time: float) -> np.ndarray | None:
        """The picture at `time`, or `None` past the last frame."""
        # ffmpeg reads times to the millisecond, and so do the published shards.
        target = math.ceil((Fraction(round(time * 1000), 1000) + self.zero) / self.stream.time_base)
        if self.after is None or self.after.pts < target:
            self._move(target)
        if self.problem and not self.any_decoded:
            name = Path(self.path).name
            raise MediaError(Outcome.MEDIA_UNREADABLE, f"{name}: none of its pictures can be decoded: {self.problem}")
        frame = self._shown(target)
        return self._rgb(frame) if frame else None

    def _shown(self, target: int) -> av.VideoFrame | None:
        """Which of the two frames around the target is shown at it."""
        before, after = self.before, self.after
        if after is None:
            return before if before is not None and target < self._end_of_hold(before) else None
        holds = before is not None and self._long(after.pts - before.pts)
        return before if holds and after.pts > target else after

    def _long(self, ticks: int) -> bool:
        return ticks * self.stream.time_base > HOLD_SECONDS

    def _end_of_hold(self, last: av.VideoFrame) -> Fraction:
        """Until when, in ticks, the stream's last picture is shown; its own time stamp if it does not hold."""
        if self.hold_end is None:
            own = last.duration or 0
            self.hold_end = Fraction(last.pts + (own if self._long(own) else 0))
            if (extent := measure(self.path)).picture_holds:
                self.hold_end = max(self.hold_end, (Fraction(extent.end) + self.zero) / self.stream.time_base)
        return self.hold_end

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """`uint8 [h, w, 3]`, upright, all of the first one's size: a stream may change it half-way."""
        laid = orientation(frame)
        if self.shape is None:
            aspect = self.stream.sample_aspect_ratio or self.stream.codec_context.sample_aspect_ratio
            width, height = displayed_size(frame.width, frame.height, aspect)
            self.shape = (width, height) if laid.transposed else (height, width)
        height, width = self.shape[::-1] if laid.transposed else self.shape
        return laid.apply(frame.to_ndarray(format="rgb24", width=width, height=height))

    def _move(self, target: int) -> None:
        """Set `before` and `after` for a target later than the last one."""
        if self.indexed and not self._near(target):
            self._seek(target)
            return
        self._advance(target)
        if self.jumped and not self._proved(target):
            self._read_all(target)

    def _read_all(self, target: int) -> None:
        """Decode from the beginning of the file on, as the key frames that were jumped to were none."""
        self._open(all_frames=True)
        self._advance(target)

    def _proved(self, target: int) -> bool:
        """Whether `after` is the first frame not before the target: an earlier one was seen, or it is just at it."""
        return self.before is not None or (self.after is not None and self.after.pts == target)

    def _near(self, target: int) -> bool:
        """Whether decoding on gets to `target` without passing a key frame that a seek could jump to."""
        if not self.sought:
            return False
        entries = self.stream.index_entries
        key = entries.search_timestamp(target, backward=True) if len(entries) else -1
        return key >= 0 and entries[key].timestamp <= self.demuxed

    def _seek(self, target: int) -> None:
        """Jump to a key frame before `target`; if the file's index lies and it is after it, try further back."""
        first_pts = self.stream.start_time or 0
        self.sought = True
        for margin in _SEEK_MARGINS:
            back = target - margin / float(self.stream.time_base)
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
        """Read packets until no later one can be shown before the target, and drop those that need no decoding."""
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
        """Let decoding go on at the key frame that is read next."""
        if self.fed:
            self.stream.codec_context.flush_buffers()
        self.jumped |= self.fed or bool(self.buffer)
        self.fed = False
        self.buffer.clear()
        self.buffered = 0
        self._forget()

    def _decode(self, target: int) -> bool:
        """Decode packets until frames are pending; false at the end of the stream."""
        failures = 0
        while failures <= CORRUPT_PACKETS:
            if self.buffered > _BUFFERED_BYTES or not self.buffer:
                self._fill(target)
            if not self.buffer:
                return False
            packet = self.buffer.popleft()
            self.buffered -= packet.size
            self.fed = True
            # What is shown before the target, and refers to nothing later, need not be decoded.
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
