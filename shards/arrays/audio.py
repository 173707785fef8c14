"""The sound of one segment, from its spectrogram's bytes to three clips and their times (docs/spec/shards.md 7).

NumPy only: the reader, inference and reports share this code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shards.arrays import jpeg as jpeg_pictures
from shards.sizes import MEL_BANDS, SAMPLE_RATE, SPECTROGRAM_COLUMNS

HOP_SECONDS = 588 / SAMPLE_RATE
WINDOW_SECONDS = 1536 / SAMPLE_RATE
SEGMENT_SECONDS = 5.0
"""Played seconds of a segment."""


@dataclass(frozen=True)
class ClipTimes:
    """When the clips of a segment start, end and have their middle: `float32 [clips]` played seconds."""

    starts: np.ndarray
    ends: np.ndarray
    centres: np.ndarray


def decode(jpeg: bytes) -> np.ndarray:
    """The grey levels of a spectrogram: `uint8 [188, 64]`, time by mel band. Raises `RecordError` if it is none."""
    return jpeg_pictures.grey(jpeg, (MEL_BANDS, SPECTROGRAM_COLUMNS)).T


def clip_starts(draws: np.ndarray, length: int) -> np.ndarray:
    """First columns `int64 [..., clips]` of clips of `length` columns, spread by `draws [..., clips + 1]`.

    The draws share out the columns that no clip covers; the last one is the gap at the end.
    """
    clips = draws.shape[-1] - 1
    slack = SPECTROGRAM_COLUMNS - clips * length
    gaps = np.cumsum(draws, axis=-1)
    return (slack * gaps[..., :-1] / gaps[..., -1:]).astype(np.int64) + length * np.arange(clips)


def clip_times(starts: np.ndarray, length: int) -> ClipTimes:
    """The times of clips that begin at these columns, the same at every playback speed."""
    first = starts * HOP_SECONDS - WINDOW_SECONDS / 2
    last = first + length * HOP_SECONDS + WINDOW_SECONDS
    centres = (starts + length / 2) * HOP_SECONDS
    return ClipTimes(first.astype(np.float32), last.astype(np.float32), centres.astype(np.float32))


def write_clips(pixels: np.ndarray, magic: float, speed: int, starts: np.ndarray, length: int, out: np.ndarray) -> None:
    """Write the clips as `out float32 [clips, length, 65]`: log-mel bands, then the playback speed."""
    for clip, start in zip(out, starts, strict=True):
        np.divide(pixels[start : start + length], np.float32(magic), out=clip[:, :MEL_BANDS], casting="unsafe")
    out[..., MEL_BANDS] = speed
