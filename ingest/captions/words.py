"""Words with times, and the rules that all words of a transcript satisfy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LATEST_SECONDS = 3_600_000.0
"""Maximum time of a valid cue, 1,000 hours; later cues are dropped."""

MAX_WORDS = 1_000_000
"""Maximum number of words of a transcript, 100 hours of fast speech."""


class CaptionError(ValueError):
    """A caption track is malformed; the message quotes the offending text."""


@dataclass(frozen=True)
class Word:
    """A spoken word with its start and end in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """The words of one track; `timed` is whether the track itself has a time for every word."""

    words: list[Word]
    timed: bool


def check_count(words: int) -> None:
    """Raise `CaptionError` for more than `MAX_WORDS` words."""
    if words > MAX_WORDS:
        raise CaptionError(f"the caption track has more than {MAX_WORDS} words; it is not that of one video")


def share(texts: Sequence[str], start: float, end: float) -> list[Word]:
    """Split the time from `start` to `end` evenly among words.

    Raises `CaptionError` for times that are not finite, and for more than `MAX_WORDS` words.
    """
    check_count(len(texts))
    if not (math.isfinite(start) and math.isfinite(end)):
        raise CaptionError(f"a cue lasts from {start} to {end} seconds")
    if len(texts) == 1:
        return [Word(texts[0], start, end)]
    bounds = np.linspace(start, end, len(texts) + 1).tolist()
    return [Word(text, s, e) for text, s, e in zip(texts, bounds, bounds[1:], strict=False)]


def in_order(words: Sequence[Word]) -> list[Word]:
    """Sort words by start and end each where the next one starts, so that words of overlapping cues do not overlap."""
    ordered = sorted(words, key=lambda word: word.start)
    limits = [*(word.start for word in ordered[1:]), math.inf]
    return [Word(w.text, w.start, max(w.start, min(w.end, limit))) for w, limit in zip(ordered, limits, strict=False)]


def speech_in_order(words: Sequence[Word]) -> list[Word]:
    """Sort the spoken words, but not descriptions of sounds such as `[Music]`.

    Speech recognition describes sounds that continue during speech, so their times overlap with the words around them.
    """
    spoken = iter(in_order([word for word in words if not _is_sound(word)]))
    return [word if _is_sound(word) else next(spoken) for word in words]


def _is_sound(word: Word) -> bool:
    return word.text[0] == "[" and word.text[-1] == "]" and any(map(str.isalpha, word.text))
