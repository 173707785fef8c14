"""Decode the spectrogram of a segment and cut it into audio clips with times (docs/spec/shards.md 7).

NumPy only: the reader, inference and reports share this code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from shards.arrays import jpeg as jpeg_pictures
from shards.sizes import MEL_BANDS, SAMPLE_RATE, SPECTROGRAM_COLUMNS

HOP_SECONDS = 588 / SAMPLE_RATE
WINDOW_SECONDS = 1536 / SAMPLE_RATE
SEGMENT_SECONDS = 5.0
"""Played seconds of a segment."""


@dataclass(frozen=True)
class ClipTimes:
    """Times of the clips of one or more segments in played seconds from the start of the segment."""

    starts: Float32[np.ndarray, "*segments clips"]
    ends: Float32[np.ndarray, "*segments clips"]
    centres: Float32[np.ndarray, "*segments clips"]


def decode(jpeg: bytes) -> UInt8[np.ndarray, "188 64"]:
    """Return the grey levels of a spectrogram, time by mel band. Raises `RecordError` if it is not a valid one."""
    return jpeg_pictures.grey(jpeg, (MEL_BANDS, SPECTROGRAM_COLUMNS)).T


def clip_starts(draws: Float[np.ndarray, "*segments clips+1"], length: int) -> Int64[np.ndarray, "*segments clips"]:
    """Return the first columns of clips of `length` columns.

    The draws are the relative sizes of the gaps before each clip and at the end.
    """
    clips = draws.shape[-1] - 1
    slack = SPECTROGRAM_COLUMNS - clips * length
    gaps = np.cumsum(draws, axis=-1)
    return (slack * gaps[..., :-1] / gaps[..., -1:]).astype(np.int64) + length * np.arange(clips)


def clip_times(starts: Int64[np.ndarray, "*segments clips"], length: int) -> ClipTimes:
    """Return the times of clips that start at these columns; they do not depend on the playback speed."""
    first = starts * HOP_SECONDS - WINDOW_SECONDS / 2
    last = first + length * HOP_SECONDS + WINDOW_SECONDS
    centres = (starts + length / 2) * HOP_SECONDS
    return ClipTimes(first.astype(np.float32), last.astype(np.float32), centres.astype(np.float32))


def write_clips(
    pixels: UInt8[np.ndarray, "188 64"],
    magic: float,
    speed: int,
    starts: Int64[np.ndarray, "clips"],
    length: int,
    out: Float32[np.ndarray, "clips length 65"],
) -> None:
    """Write the clips into `out`: log-mel bands, then the playback speed."""
    for clip, start in zip(out, starts, strict=True):
        np.divide(pixels[start : start + length], np.float32(magic), out=clip[:, :MEL_BANDS], casting="unsafe")
    out[..., MEL_BANDS] = speed
