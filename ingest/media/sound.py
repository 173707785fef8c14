"""Decode the sound of a media file with each sample at its presentation time.

Decoded samples are contiguous while the time stamps agree with their number; small differences are rounding errors of
the container. Where a time stamp differs by more than `TOLERANCE_SECONDS`, the sound continues at that time: after
silence if it is later, without the overlap if it is earlier.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import IO

import av
import av.error
import numpy as np
from av.container import InputContainer
from jaxtyping import Int16

from ingest.media.containers import CORRUPT_PACKETS, demux, open_media, origin
from ingest.media.extent import stated_end
from ingest.media.tracks import sound_stream

TOLERANCE_SECONDS = 0.02
"""Maximum difference of a time stamp from the time of the samples before it; rounding to milliseconds is far below."""

MAX_SOUND_SECONDS = 6 * 3600.0
"""Default maximum length of a stored track: 1 GB at 22,050 Hz."""

STATED_MARGIN_SECONDS = 10.0
"""Sound is stored until this time after the stated duration of the file."""

_BLOCK = 1 << 20
"""Number of samples processed at a time."""


class Sound:
    """A decoded track of `length` samples, mono int16, in a temporary file.

    `track` is the language, or else the index, of the stream if the file has several, else `None`; `full` is whether
    the maximum length has been reached.
    """

    def __init__(self, spool: IO[bytes], limit: int, track: str | None = None):
        self._spool, self._limit = spool, limit
        self._stored = 0
        self.length = 0
        self.track = track
        self.full = False

    def write(self, samples: bytes, first: int) -> None:
        """Store mono int16 samples at position `first`: after silence, or without the part already stored."""
        count = len(samples) // 2
        self.full = first + count >= self._limit
        if first < self.length or self.full:
            samples = samples[2 * max(self.length - first, 0) : 2 * max(self._limit - first, 0)]
            first, count = max(first, self.length), len(samples) // 2
        if not count:
            return
        # Silence is a hole in the file. Seeking flushes, so it is done only across a hole.
        if samples.strip(b"\0"):
            if first != self._stored:
                self._spool.seek(2 * first)
            self._spool.write(samples)
            self._stored = first + count
        self.length = first + count

    def finish(self) -> None:
        """Extend the file to its length, if it ends in silence."""
        self._spool.truncate(2 * self.length)

    def peak(self) -> int:
        """Return the magnitude of the loudest sample."""
        loudest = 0
        for first in range(0, self.length, _BLOCK):
            block = self.read(first, _BLOCK)
            loudest = max(loudest, int(block.max()), -int(block.min()))
        return loudest

    def read(self, first: int, count: int) -> Int16[np.ndarray, "samples"]:
        """Return `count` samples from `first` on, or fewer at the end of the track."""
        # Not memory-mapped: mapped pages would count towards the memory limit of the process.
        self._spool.seek(2 * first)
        return np.frombuffer(self._spool.read(2 * count), np.int16)


@contextlib.contextmanager
def sound(
    path: str, sample_rate: int = 22_050, language: str | None = None, seconds: float = MAX_SOUND_SECONDS
) -> Iterator[Sound]:
    """Decode the track into a temporary file that exists during the block; its length is 0 if there is no sound.

    Of several tracks it is the one in `language` (ISO 639, as `en` or `eng`), else the default one, else the first. At
    most `seconds` from the beginning are decoded, and not more than the stated duration and a margin. Raises
    `MediaError` like `open_media`.
    """
    with tempfile.TemporaryFile(prefix="reservoir-sound-") as spool, open_media(path) as container:
        stream = sound_stream(container, language)
        if (stated := stated_end(container)) is not None:
            seconds = min(seconds, stated + STATED_MARGIN_SECONDS)
        track = Sound(spool, int(seconds * sample_rate))
        if stream is not None:
            if len(container.streams.audio) > 1:
                track.track = stream.language or str(stream.index)
            _store(container, stream, sample_rate, track)
            track.finish()
        yield track


def _store(container: InputContainer, stream: av.AudioStream, sample_rate: int, track: Sound) -> None:
    """Decode a stream up to the track's limit."""
    stream.codec_context.thread_count = 1
    zero = float(origin(container))
    run: _Run | None = None
    failures = 0
    for packet in demux(container, [stream]):
        try:
            decoded = packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:
            failures += 1
            if failures > CORRUPT_PACKETS:
                break
            continue
        failures = 0
        for frame in decoded:
            time = None if frame.time is None else frame.time - zero
            if run is None or not run.continues(frame, time):
                start = run.end if run else 0.0
                if time is not None and abs(time - start) > TOLERANCE_SECONDS:
                    start = time
                if run is not None:
                    run.close()
                run = _Run(track, sample_rate, start, frame)
            run.add(frame)
        if track.full:
            return
    if run is not None:
        run.close()


class _Run:
    """Contiguous frames of one format, resampled as one signal."""

    def __init__(self, track: Sound, sample_rate: int, start: float, frame: av.AudioFrame):
        self.track = track
        self.form = _form(frame)
        self.start, self.samples, self.rate = start, 0, frame.sample_rate
        self.position = round(start * sample_rate)
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)

    @property
    def end(self) -> float:
        """The time of the next frame in seconds."""
        return self.start + self.samples / self.rate

    def continues(self, frame: av.AudioFrame, time: float | None) -> bool:
        """Return whether a frame continues the run."""
        return _form(frame) == self.form and (time is None or abs(time - self.end) <= TOLERANCE_SECONDS)

    def add(self, frame: av.AudioFrame) -> None:
        """Append a frame that continues the run."""
        self.samples += frame.samples
        self._write(self.resampler.resample(frame))

    def close(self) -> None:
        """Flush the resampler."""
        self._write(self.resampler.resample(None))

    def _write(self, pieces: list[av.AudioFrame]) -> None:
        for piece in pieces:
            # A plane is padded; its samples come first.
            self.track.write(bytes(memoryview(piece.planes[0])[: 2 * piece.samples]), self.position)
            self.position += piece.samples


def _form(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
