"""The sizes that the record format fixes, and the range of the random zoom.

Standard library only, so that configurations can import them at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 22_050
MEL_BANDS = 64
SPECTROGRAM_COLUMNS = 188
SHORT_SIDE = 288
LONG_SIDE = 512


@dataclass(frozen=True)
class Scaling:
    """Random zoom of a training image: a factor in [low, high) of the target size (docs/spec/shards.md 6.4)."""

    low: float = 1.05
    high: float = 1.1
    shrink_both_sides: bool = True
