"""Split a video into windows of five played seconds.

Dense speech is played at normal speed; a window of sparse speech covers two or three times as much and is played
faster, so that a segment of fixed size has enough words (docs/spec/ingest.md 11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ingest.captions import Word

BASE_SECONDS = 5.0
ENOUGH_WORDS = 8
CROWDED_WORDS = 16
KEEP_GROWING = 0.9
TAIL_SECONDS = 1.0
MAX_SPEED = 3


@dataclass(frozen=True)
class Window:
    """Start and end of a segment in seconds, its playback speed (1, 2 or 3) and the indices of its words."""

    start: float
    end: float
    speed: int
    words: list[int]


def segment(words: list[Word], duration: float, uniform: Callable[[], float]) -> list[Window]:
    """Return contiguous windows from just before the first word to the last word or one second before the end.

    `uniform` returns one draw in [0, 1): first the jitter of the start, then at most one per speed tried (draw order of
    docs/spec/ingest.md 11). Without words there are no windows.
    """
    if not words:
        return []
    centres = np.array([(w.start + w.end) / 2 for w in words])
    # Centres may step back; no word at or after this index comes earlier, which bounds every search below.
    earliest = np.minimum.accumulate(centres[::-1])[::-1]

    def before(end: float) -> list[int]:
        stop = max(int(np.searchsorted(earliest, end)), first)
        return (first + np.flatnonzero(centres[first:stop] < end)).tolist()

    def speed_at(start: float) -> int:
        for speed in range(1, MAX_SPEED + 1):
            end = start + BASE_SECONDS * speed
            if (
                len(before(end)) >= ENOUGH_WORDS
                or end + BASE_SECONDS > limit
                or len(before(end + BASE_SECONDS)) >= CROWDED_WORDS
                or uniform() > KEEP_GROWING
            ):
                return speed
        return MAX_SPEED

    limit = duration - TAIL_SECONDS
    start = round(max(words[0].start - 0.5 * uniform() * BASE_SECONDS, 0), 2)
    first = 0
    windows = []
    while first < len(words) and start + BASE_SECONDS <= limit:
        speed = speed_at(start)
        inside = before(start + BASE_SECONDS * speed)
        end = round(start + BASE_SECONDS * speed, 2)
        windows.append(Window(start, end, speed, inside))
        start = end
        if inside:
            first = inside[-1] + 1
    return windows
