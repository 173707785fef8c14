"""Frames and sound out of a media file.

A frame at time t is the first one whose time stamp is not before t (spec ingest.md 12.1). PyAV seeks to the key frame
before t and decodes from there, which costs a fraction of decoding everything; frames that nothing refers to are
skipped on the way. Frames are handed out one by one and sound goes to a temporary file, so that memory does not grow
with the length of a video.
"""

from __future__ import annotations

import contextlib
import io
import math
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import av.error
import numpy as np
from PIL import Image

from ingest.ffmpeg import ProgramMissingError, ffmpeg_path
from ingest.outcomes import Outcome
from shards.sizes import LONG_SIDE, SHORT_SIDE

FRAME_QUALITY = 75
BLACK_LEVEL = 32
MAX_TRIM = 0.2

_SEEK_MARGINS = (0.0, 2.0, 10.0, 60.0, float("inf"))
"""Seconds before t at which a seek is tried; a file whose index lies needs the later ones, at last its beginning."""

_REMUX_SECONDS = 120

_BLOCK = 1 << 20
"""Samples looked at together."""

_CORRUPT_PACKETS = 200
"""Packets that may fail in a row before a stream counts as undecodable."""


class MediaError(ValueError):
    """A media file cannot be used; `outcome` is the reason's name."""

    def __init__(self, outcome: Outcome, detail: str):
        super().__init__(detail)
        self.outcome = outcome


@dataclass(frozen=True)
class Probe:
    """What a file says of itself: seconds of its streams (`None` if unknown), whether it has picture and sound."""

    duration: float | None
    has_picture: bool
    has_sound: bool


@contextlib.contextmanager
def open_media(path: str) -> Iterator[av.container.InputContainer]:
    """A container for reading. A file that PyAV refuses is remuxed by ffmpeg and tried again.

    Raises `MediaError` (media-missing or media-unreadable) with the cause.
    """
    if not Path(path).is_file():
        raise MediaError(Outcome.MEDIA_MISSING, f"there is no media file {path!r}")
    with contextlib.ExitStack() as stack:
        try:
            container = av.open(path)
        except (av.error.FFmpegError, ValueError) as error:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reservoir-remux-"))
            try:
                container = av.open(_remux(path, folder))
            except (subprocess.SubprocessError, ProgramMissingError, av.error.FFmpegError):
                raise MediaError(Outcome.MEDIA_UNREADABLE, f"{Path(path).name} cannot be opened: {error}") from None
        stack.enter_context(container)
        yield container


def _remux(path: str, folder: str) -> str:
    """A copy of the streams in a container that PyAV reads."""
    import ffmpeg

    remuxed = str(Path(folder) / "remuxed.mkv")
    command = ffmpeg.input(path).output(remuxed, c="copy", loglevel="error").compile(cmd=ffmpeg_path())
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, timeout=_REMUX_SECONDS, stdin=quiet, stdout=quiet, stderr=quiet)
    return remuxed


def probe(path: str) -> Probe:
    """Look at the streams of a file. Raises `MediaError` like `open_media`."""
    with open_media(path) as container:
        streams = [*container.streams.video[:1], *container.streams.audio[:1]]
        lengths = [float(s.duration * s.time_base) for s in streams if s.duration]
        if not lengths and container.duration:
            lengths = [container.duration / av.time_base]
        return Probe(
            duration=max(lengths, default=None),
            has_picture=_picture_stream(container) is not None,
            has_sound=bool(container.streams.audio),
        )


def read(path: str, times: Sequence[float], sample_rate: int = 22_050) -> tuple[list[np.ndarray | None], np.ndarray]:
    """Frames at `times` (`uint8 [h, w, 3]`, `None` past the last frame) and the sound of a small file.

    Sound is mono `float32 [n]` in int16 units, empty when there is none. Raises `MediaError` when the file cannot be
    opened or has no picture.
    """
    order = sorted(range(len(times)), key=lambda i: times[i])
    found = dict(zip(order, frames(path, [times[i] for i in order]), strict=True))
    with sound(path, sample_rate) as track:
        waveform = track.read(0, track.length).astype(np.float32)
    return [found[i] for i in range(len(times))], waveform


def frames(path: str, times: Sequence[float]) -> Iterator[np.ndarray | None]:
    """Yields the frame for each of `times`, which must not decrease; `None` for a time past the last frame."""
    with open_media(path) as container:
        stream = _picture_stream(container)
        if stream is None:
            raise MediaError(Outcome.NO_PICTURE, f"{Path(path).name} has no video stream")
        # Parallelism comes from videos, and skipping frames on the way needs decisions packet by packet.
        stream.codec_context.thread_count = 1
        cursor = _Cursor(container, stream)
        for time in times:
            yield cursor.frame_at(time)


def _picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first video stream that is no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


class _Cursor:
    """A place in a stream that only moves forward, decoding or seeking, whichever is less."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        self.container, self.stream = container, stream
        self.origin = Fraction(container.start_time or 0, av.time_base)
        self.packets: Iterator[av.Packet] | None = None
        self.demuxed = -(1 << 62)
        self.pending: list[av.VideoFrame] = []
        self.last: av.VideoFrame | None = None
        self.size: tuple[int, int] | None = None

    def frame_at(self, time: float) -> np.ndarray | None:
        """The picture at `time`, or `None` past the last frame."""
        # ffmpeg reads times to the millisecond, and so do the published shards.
        target = math.ceil((Fraction(round(time * 1000), 1000) + self.origin) / self.stream.time_base)
        if self.last is not None and self.last.pts >= target:
            frame = self.last
        elif self._near(target):
            frame, _ = self._advance(target)
        else:
            frame = self._seek(target)
        return self._rgb(frame) if frame else None

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """`uint8 [h, w, 3]`, upright, all of the first one's size: a stream may change it half-way."""
        self.size = self.size or (frame.width, frame.height)
        image = frame.to_ndarray(format="rgb24", width=self.size[0], height=self.size[1])
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _near(self, target: int) -> bool:
        """Whether decoding on gets to `target` without passing a key frame that a seek could jump to."""
        if self.packets is None:
            return False
        entries = self.stream.index_entries
        found = entries.search_timestamp(target, backward=True) if len(entries) else -1
        return found >= 0 and entries[found].timestamp <= self.demuxed

    def _seek(self, target: int) -> av.VideoFrame | None:
        """Jump to a key frame before `target`; if the file's index lies and it is after it, try further back."""
        first_pts = self.stream.start_time or 0
        for margin in _SEEK_MARGINS:
            back = target - margin / float(self.stream.time_base)
            at_start = back <= first_pts
            with contextlib.suppress(av.error.FFmpegError):
                self.container.seek(first_pts if at_start else int(back), stream=self.stream, backward=True)
            self.packets, self.pending, self.last = self.container.demux(self.stream), [], None
            frame, saw_earlier = self._advance(target)
            if at_start or saw_earlier or (frame and frame.pts == target):
                return frame
        return None

    def _advance(self, target: int) -> tuple[av.VideoFrame | None, bool]:
        """The first frame at or after `target`, and whether an earlier one (a proof of no gap) was seen before it."""
        earlier = False
        while True:
            for i, frame in enumerate(self.pending):
                if frame.pts is not None and frame.pts >= target:
                    self.pending = self.pending[i + 1 :]
                    self.last = frame
                    return frame, earlier
                earlier = True
            self.pending = self._decode(target)
            if not self.pending:
                return None, earlier

    def _decode(self, target: int) -> list[av.VideoFrame]:
        """The next decoded frames; empty at the end of the stream."""
        failures = 0
        for packet in self.packets or ():
            if packet.dts is not None:
                self.demuxed = packet.dts
            before = packet.pts is not None and packet.pts < target
            self.stream.codec_context.skip_frame = "NONREF" if before else "DEFAULT"
            try:
                decoded = packet.decode()
            except MemoryError:
                raise
            except av.error.FFmpegError:
                failures += 1
                if failures > _CORRUPT_PACKETS:
                    return []
                continue
            if decoded:
                return decoded
        return []


class Sound:
    """A decoded track of `length` samples, mono int16, in a temporary file."""

    def __init__(self, spool: IO[bytes]):
        self._spool = spool
        self.length = 0

    def append(self, frame: av.AudioFrame) -> None:
        """Add a frame of mono int16 at the end."""
        # A plane is padded; its samples come first.
        self._spool.write(memoryview(frame.planes[0])[: 2 * frame.samples])
        self.length += frame.samples

    def peak(self) -> int:
        """The magnitude of the loudest sample."""
        loudest = 0
        for first in range(0, self.length, _BLOCK):
            block = self.read(first, _BLOCK)
            loudest = max(loudest, int(block.max()), -int(block.min()))
        return loudest

    def read(self, first: int, count: int) -> np.ndarray:
        """Samples from `first` on, `int16 [<= count]`: fewer where the track ends."""
        # Reading, not mapping: mapped pages would count as memory of the process, and hours of sound as its leak.
        self._spool.seek(2 * first)
        return np.frombuffer(self._spool.read(2 * count), np.int16)


@contextlib.contextmanager
def sound(path: str, sample_rate: int = 22_050) -> Iterator[Sound]:
    """The whole track, in a temporary file that goes with the block; of no length when the file has no sound."""
    with tempfile.TemporaryFile(prefix="reservoir-sound-") as spool:
        track = Sound(spool)
        with open_media(path) as container:
            if container.streams.audio:
                _spool_sound(container, sample_rate, track)
        yield track


def _spool_sound(container: av.container.InputContainer, sample_rate: int, track: Sound) -> None:
    stream = container.streams.audio[0]
    stream.codec_context.thread_count = 1
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
    failures = 0
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:
            failures += 1
            if failures > _CORRUPT_PACKETS:
                break
            continue
        for frame in decoded:
            for piece in resampler.resample(frame):
                track.append(piece)
    for piece in resampler.resample(None):
        track.append(piece)


class Content:
    """Which rows and columns ever show something, over all frames of a video."""

    def __init__(self) -> None:
        self.rows: np.ndarray | None = None
        self.columns: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """Look at a frame `uint8 [h, w, 3]`; all frames have one size."""
        rows = frame.reshape(len(frame), -1).max(axis=1) >= BLACK_LEVEL
        columns = frame.max(axis=0).max(axis=1) >= BLACK_LEVEL
        self.rows = rows if self.rows is None else self.rows | rows
        self.columns = columns if self.columns is None else self.columns | columns

    def box(self) -> tuple[int, int, int, int]:
        """`(y1, y2, x1, x2)`: the part that shows something, cutting at most a fifth on each side (spec 12.2)."""
        return (*_bounds(self.rows), *_bounds(self.columns))


def black_bars(frames: Sequence[np.ndarray]) -> tuple[int, int, int, int]:
    """The box inside the black bars of all `frames` together: rows `[y1, y2)`, columns `[x1, x2)`."""
    content = Content()
    for frame in frames:
        content.add(frame)
    return content.box()


def _bounds(lit: np.ndarray) -> tuple[int, int]:
    size = len(lit)
    where = np.flatnonzero(lit)
    first, last = (int(where[0]), int(where[-1])) if len(where) else (size // 2, size // 2)
    return min(first, int(MAX_TRIM * size)), max(last + 1, int((1 - MAX_TRIM) * size))


def target_size(width: int, height: int, short_side: int = SHORT_SIDE, long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Width and height of a stored frame: sides of at most 288 and 512, never enlarged (spec 12.3)."""
    short, long = min(width, height), max(width, height)
    size = short_side
    if short <= size:
        return width, height
    if long / short * size > long_side:
        size = round(long_side * short / long)
    if short == size:
        return width, height
    return (size, int(size * height / width)) if width < height else (int(size * width / height), size)


def encode_frame(frame: np.ndarray, box: tuple[int, int, int, int]) -> tuple[bytes, int, int]:
    """A frame cut to `box`, resized and compressed: the JPEG's bytes, its width and its height."""
    y1, y2, x1, x2 = box
    image = Image.fromarray(frame[y1:y2, x1:x2])
    size = target_size(image.width, image.height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=FRAME_QUALITY, optimize=True)
    return buffer.getvalue(), image.width, image.height
