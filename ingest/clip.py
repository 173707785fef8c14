"""Split a video into segments for inference: frames, sound and words, without a record.

The parameters are those of the published inference code (docs/spec/training.md 12, docs/spec/shards.md 18): playback
speed 1, one frame in the middle of each segment, black bars cropped, the sound normalised by its loudest sample.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from ingest import captions, media, spectrogram
from ingest.captions import CaptionError, Word
from ingest.media import MediaError
from ingest.raw import CAPTION_FORMS, RawVideo, decode_text
from ingest.transcript import ranked_tracks
from shards.arrays import audio, images
from shards.outcomes import Outcome
from shards.sizes import MEL_BANDS, SAMPLE_RATE
from shards.storage.errors import UserError

SEGMENT_SECONDS = 5.0
MARGIN_SECONDS = 1.0
"""Margin at the end of the video: streams end a little before their stated length."""

CLIP_COLUMNS = 60
CLIP_STARTS = (2, 64, 126)
"""Columns of a segment's spectrogram at which its three clips start."""

PATCH = 16


class ClipError(UserError):
    """A video cannot be read for inference; the message names it and the reason."""


@dataclass(frozen=True)
class Clip:
    """The segments of a video.

    `times` are start and end in seconds, `log_mels` is `None` without sound, `texts` are the words or token ids of each
    segment, `None` without captions. `remarks` are notes for the user; `speeds` are playback speeds, 1 if `None`.
    """

    times: Float64[np.ndarray, "n 2"]
    frames: list[UInt8[np.ndarray, "h w 3"]]
    log_mels: Float32[np.ndarray, "n 64 188"] | None
    texts: Sequence[str | Sequence[int]] | None
    remarks: tuple[str, ...] = ()
    speeds: Sequence[int] | None = None

    def patches(self, grid: tuple[int, int]) -> Float32[np.ndarray, "n patches 768"]:
        """Return the frames in [0, 1], fitted to the top left of a grid of 16-pixel patches."""
        out = np.zeros((len(self.frames), grid[0] * grid[1], PATCH * PATCH * 3), np.float32)
        for frame, patches in zip(self.frames, out, strict=True):
            target = (grid[0] * PATCH, grid[1] * PATCH)
            placement = images.place(frame.shape[0], frame.shape[1], target, None, None)
            images.write_patches(frame, placement, grid, PATCH, patches)
        return out

    def audio_clips(self) -> Float32[np.ndarray, "n 3 60 65"] | None:
        """Return the log-mel bands, then the playback speed; `None` without sound."""
        if self.log_mels is None:
            return None
        out = np.empty((len(self.log_mels), len(CLIP_STARTS), CLIP_COLUMNS, MEL_BANDS + 1), np.float32)
        speeds = self.speeds or [1] * len(out)
        for log_mel, speed, clips in zip(self.log_mels, speeds, out, strict=True):
            audio.write_clips(log_mel.T, 1.0, speed, np.array(CLIP_STARTS), CLIP_COLUMNS, clips)
        return out


def read_clip(
    path: str,
    start: float = 0.0,
    end: float | None = None,
    words: Sequence[Word] | None = None,
    seconds: float = SEGMENT_SECONDS,
) -> Clip:
    """Return the segments of `seconds` each between two times of a media file.

    A video shorter than one segment has a single segment, padded with silence. Raises `ClipError` if it has none.
    """
    if not start >= 0 or (end is not None and not end > start):
        raise ClipError(f"{start:g} s to {'the end' if end is None else f'{end:g} s'} is not a valid part of a video")
    try:
        probe = media.probe(path)
    except MediaError as error:
        raise ClipError(str(error)) from None
    if not probe.has_picture:
        raise ClipError(f"{Path(path).name} has no picture; give a video, not a sound file")
    if probe.duration is None:
        raise ClipError(f"{Path(path).name} has no packets with times, so its length is unknown")
    duration = min(probe.duration, probe.picture_end or probe.duration)
    if start >= duration:
        raise ClipError(f"{Path(path).name} lasts {duration:.1f} s, so nothing starts at {start:g} s")
    whole = uniform(start, duration - MARGIN_SECONDS if end is None else min(end, duration), seconds)
    remarks = []
    if duration < probe.duration:
        remarks.append(f"the picture ends at {duration:.1f} s, the sound at {probe.duration:.1f} s")
    if not whole:
        stop = duration if end is None else min(end, duration)
        remarks.append(f"only {stop - start:.1f} s long: one segment, filled up with silence")
        whole = [(start, stop)]
    if not probe.has_sound:
        remarks.append("no sound: answered from the frames" + (" and the captions" if words else ""))
    return read_intervals(path, whole, words, tuple(remarks))


def uniform(start: float, stop: float, seconds: float = SEGMENT_SECONDS) -> list[tuple[float, float]]:
    """Return intervals of one length, the last of which ends before `stop`."""
    count = max(math.ceil((stop - start) / seconds) - 1, 0)
    return [(start + i * seconds, start + (i + 1) * seconds) for i in range(count)]


def read_intervals(
    path: str, intervals: Sequence[tuple[float, float]], words: Sequence[Word] | None = None, remarks: tuple = ()
) -> Clip:
    """Return one segment for each interval, which must not go back in time.

    The frame is the one in the middle. Sound shorter than 5 s is centred in silence; of longer sound the middle 5 s
    count. Raises `ClipError`.
    """
    try:
        frames = _frames(path, [(a + b) / 2 for a, b in intervals])
        log_mels = _log_mels(path, intervals)
    except MediaError as error:
        raise ClipError(f"{Path(path).name}: {error}") from None
    texts = None
    if words:
        texts = tuple(" ".join(w.text for w in words if a <= (w.start + w.end) / 2 < b) for a, b in intervals)
    return Clip(np.array(intervals, np.float64).reshape(-1, 2), frames, log_mels, texts, remarks)


def _frames(path: str, times: Sequence[float]) -> list[np.ndarray]:
    frames = []
    for time, frame in zip(times, media.frames(path, times), strict=True):
        if frame is None:
            raise MediaError(Outcome.FRAME_MISSING, f"there is no frame at {time:.3f} s")
        frames.append(frame)
    y1, y2, x1, x2 = media.black_bars(frames)
    return [frame[y1:y2, x1:x2] for frame in frames]


def _log_mels(path: str, intervals: Sequence[tuple[float, float]]) -> np.ndarray | None:
    with media.sound(path, SAMPLE_RATE) as track:
        if not track.length:
            return None
        peak = max(track.peak(), 1)
        out = []
        for start, end in intervals:
            if end - start > SEGMENT_SECONDS:
                middle = (start + end) / 2
                start, end = middle - SEGMENT_SECONDS / 2, middle + SEGMENT_SECONDS / 2
            first = int(SAMPLE_RATE * start)
            length = min(int(SAMPLE_RATE * end) - first, spectrogram.SAMPLES)
            samples = track.read(first, length)
            lead = (spectrogram.SAMPLES - length) // 2
            waveform = np.zeros(spectrogram.SAMPLES, np.float32)
            waveform[lead : lead + len(samples)] = samples
            out.append(spectrogram.log_mel(waveform / np.float32(peak)))
    return np.stack(out)


def file_words(caption_file: str) -> list[Word]:
    """Return the words of a .vtt, .srt or .json3 file. Raises `ClipError`."""
    form = Path(caption_file).suffix.removeprefix(".")
    if form not in CAPTION_FORMS:
        raise ClipError(f"captions {caption_file!r} are no .vtt, .srt or .json3 file")
    try:
        return captions.read(decode_text(Path(caption_file).read_bytes()), form).words
    except OSError as error:
        raise ClipError(f"captions {caption_file!r} cannot be read: {error.strerror}") from None
    except CaptionError as error:
        raise ClipError(f"captions {caption_file!r}: {error}") from None


def track_words(raw: RawVideo, language: str = "en") -> list[Word] | None:
    """Return the words of a video's best readable caption track, `None` without one."""
    for _, track in ranked_tracks(raw, language):
        with contextlib.suppress(CaptionError):
            return captions.read(track.text, track.form).words
    return None
