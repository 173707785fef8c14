"""Compute the spectrogram of a segment: 64 mel bands by 188 columns.

The numbers are those of librosa 0.8.1 with a symmetric Hann window and reflect padding (docs/spec/ingest.md 13); the
mel bank is built here once per playback speed and one FFT covers the whole segment, so that a worker needs no librosa.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Float32
from PIL import Image

from shards.sizes import MEL_BANDS, SAMPLE_RATE, SPECTROGRAM_COLUMNS

HOP = 588
WINDOW = 1536
LOWEST_HZ = 20.0
HIGHEST_HZ = SAMPLE_RATE / 2
FLOOR = 0.1
JPEG_QUALITY = 95
SAMPLES = int(SAMPLE_RATE * 5.0)
"""Samples of a segment at normal speed; a segment at speed k has k times as many."""


def log_mel(waveform: Float32[np.ndarray, "samples"], speed: int = 1) -> Float32[np.ndarray, "64 188"]:
    """Return ln(mel power + 0.1) - ln(0.1) of 110,250 * `speed` samples; 0 for silence.

    Raises `ValueError` if the length does not result in 188 columns.
    """
    size, hop = WINDOW * speed, HOP * speed
    columns = 1 + len(waveform) // hop
    if columns != SPECTROGRAM_COLUMNS:
        raise ValueError(f"{len(waveform)} samples at speed {speed} give {columns} columns instead of 188")
    return log_mel_frames(waveform, size, hop)


def log_mel_frames(waveform: Float32[np.ndarray, "samples"], size: int, hop: int) -> Float32[np.ndarray, "64 columns"]:
    """Return the log-mel spectrogram with windows of `size` samples: 1 + samples // hop columns."""
    padded = np.pad(waveform.astype(np.float32, copy=False), size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    # Annotated, because the stub of SciPy's dispatched function has the type of its dispatcher.
    spectrum: Any = scipy.fft.rfft(frames * _window(size), axis=1, overwrite_x=True)
    power = spectrum.real**2 + spectrum.imag**2
    mel = mel_bank(size) @ power.T
    return np.log(mel + np.float32(FLOOR)) - np.float32(np.log(FLOOR))


def encode(log_mel: np.ndarray) -> tuple[bytes, float]:
    """Return a grey JPEG of the spectrogram, row 0 the lowest band, and its magic number: log-mel = pixel / magic."""
    magic = 255.0 / max(float(np.percentile(log_mel, 99)), 1.0)
    return grey_jpeg(quantise(log_mel, magic)), magic


def quantise(log_mel: np.ndarray, magic: float) -> np.ndarray:
    """Return the `uint8` pixels of a spectrogram; values above the 99th percentile saturate."""
    return np.minimum(log_mel * magic, 255.0).astype(np.uint8)


def grey_jpeg(pixels: np.ndarray) -> bytes:
    """Return a spectrogram's pixels `uint8 [rows, columns]` compressed."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


@functools.cache
def _window(size: int) -> np.ndarray:
    return np.hanning(size).astype(np.float32)


@functools.cache
def mel_bank(size: int) -> np.ndarray:
    """Return `float32 [64, size / 2 + 1]`: triangles of equal area on the Slaney mel scale, for an FFT of `size`."""
    bins = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    centres = _mel_to_hz(np.linspace(_hz_to_mel(LOWEST_HZ), _hz_to_mel(HIGHEST_HZ), MEL_BANDS + 2))
    widths = np.diff(centres)
    ramps = centres[:, None] - bins
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return triangles * (2.0 / (centres[2:] - centres[:-2])).astype(np.float32)[:, None]


_LINEAR_STEP = 200 / 3
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _LINEAR_STEP
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_START_HZ:
        return hz / _LINEAR_STEP
    return _LOG_START_MEL + np.log(hz / _LOG_START_HZ) / _LOG_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    logarithmic = _LOG_START_HZ * np.exp(_LOG_STEP * (mel - _LOG_START_MEL))
    return np.where(mel < _LOG_START_MEL, mel * _LINEAR_STEP, logarithmic)
