"""Synthesise the background sounds of the corpus: six kinds that differ in pitch, frequency band and rhythm.

Each is computed from a formula and scaled to about the same loudness, which therefore carries no information.
"""

from __future__ import annotations

import numpy as np

from pipelines.demo.scenes import SOUNDS

LOUDNESS = 0.05  # root mean square, full scale = 1
_PEAK = 0.5
_FADE = 0.03  # seconds


def synthesise(sound: str, seconds: float, rate: int, seed: int) -> np.ndarray:
    """Return one kind of sound as `float32 [round(seconds * rate)]` in [-1, 1]; `seed` varies pitch, rhythm, noise."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    shift, start = random.uniform(0.9, 1.1), random.uniform()
    wave = _wave(sound, t, shift, start, random)
    fade = np.minimum(1, np.minimum(t, seconds - t) / _FADE)
    wave = wave * (LOUDNESS / np.sqrt(np.mean(wave**2)))
    return (np.clip(wave, -_PEAK, _PEAK) * fade).astype(np.float32)


def _wave(sound: str, t: np.ndarray, shift: float, start: float, random: np.random.Generator) -> np.ndarray:
    """Return a sound before levelling; `shift` scales its pitch, `start` in [0, 1) shifts its rhythm."""
    if sound == "humming":
        return sum((np.sin(2 * np.pi * 150 * n * shift * t) / n for n in (1, 2, 3)), np.zeros(1))
    if sound == "hissing":
        noise = random.standard_normal(len(t) + 2)
        return noise[2:] - 1.6 * noise[1:-1] + 0.7 * noise[:-2]  # a high-pass: hardly anything below 3 kHz
    if sound == "beeping":
        return np.sin(2 * np.pi * 1000 * shift * t) * _gate(t * 2 + start, 0.5)
    if sound == "clicking":
        return random.standard_normal(len(t)) * np.exp(-60 * ((t * 5 + start) % 1))
    if sound == "chirping":
        sweep = (t * 2.5 + start) % 1
        return np.sin(2 * np.pi * shift * (1500 * sweep + 1500 * sweep**2) / 2.5) * _gate(t * 2.5 + start, 0.8)
    if sound == "ringing":
        strike = (t + start) % 1
        tones = (np.sin(2 * np.pi * f * shift * t) * np.exp(-4 * strike) for f in (2200, 3170, 4410))
        return sum(tones, np.zeros(1))
    raise ValueError(f"{sound!r} is not a sound; choose one of {', '.join(SOUNDS)}")


def _gate(cycles: np.ndarray, share: float) -> np.ndarray:
    """Return 1 during the first `share` of each cycle and 0 afterwards, with soft edges."""
    phase = cycles % 1
    return np.clip(np.minimum(phase, share - phase) / 0.02, 0, 1)
