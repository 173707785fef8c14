"""Forced alignment: the times at which the words of a known text are spoken, from the sound itself.

The text is cut at the borders of its captions into stretches of some seconds, and an acoustic model finds each word in
its stretch. No path is pruned: the text leaves so few that all can be kept, and none is lost in noise.
"""

from __future__ import annotations

import functools
import importlib.util
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ingest import media
from ingest.captions import Word
from shards.errors import UserError

if TYPE_CHECKING:
    from pocketsphinx import Decoder

SAMPLE_RATE = 16_000
_FRAME_SECONDS = 0.01
_MARGIN_SECONDS = 0.2
_STRETCH_SECONDS = 12.0
_LONGEST_SECONDS = 60.0
_LEAST_CONFIDENCE = 0.5
_LEAST_SHARE = 0.5


class AlignerMissingError(UserError):
    """No acoustic model is at hand."""


class ForcedAlignmentError(ValueError):
    """The text was not found in the sound; the message says how much of it was."""


@dataclass(frozen=True)
class Placed:
    """The words at their times, and how sure each is, from 0 (guessed from its neighbours) to 1."""

    words: list[Word]
    confidences: list[float]


@functools.lru_cache(maxsize=1)
def load() -> Decoder:
    """The aligner with the English model of its package. Raises `AlignerMissingError`."""
    if importlib.util.find_spec("pocketsphinx") is None:
        raise AlignerMissingError("forced alignment needs the package pocketsphinx; install the extra [asr]")
    from pocketsphinx import Decoder

    return Decoder(lm=None, samprate=SAMPLE_RATE, beam=0.0, wbeam=0.0, pbeam=0.0, bestpath=False, loglevel="FATAL")


def align(path: str, words: list[Word]) -> Placed:
    """Words with the times of their captions, put where they are heard in a media file.

    Raises `ForcedAlignmentError` if fewer than half of them are found, `MediaError` if there is no sound to read.
    """
    decoder = load()
    placed: list[Word] = []
    confidences: list[float] = []
    with media.sound(path, SAMPLE_RATE) as track:
        for stretch in stretches(words):
            found = _align_stretch(decoder, track, stretch)
            placed += found.words
            confidences += found.confidences
    sure = sum(confidence >= _LEAST_CONFIDENCE for confidence in confidences)
    if not words or sure < _LEAST_SHARE * len(words):
        raise ForcedAlignmentError(f"{sure} of {len(words)} words were found in the sound")
    return Placed(_in_order(placed), confidences)


def stretches(words: list[Word]) -> Iterator[list[Word]]:
    """Whole captions, as many as start within twelve seconds.

    Words of one caption share its time evenly, so a word of another length, or after a gap, starts a new one.
    """
    held: list[Word] = []
    for before, word in zip([None, *words], words, strict=False):
        if held and before and word.start - held[0].start >= _STRETCH_SECONDS and not _same_caption(before, word):
            yield held
            held = []
        held.append(word)
    if held:
        yield held


def _same_caption(before: Word, word: Word) -> bool:
    return abs(word.start - before.end) < 1e-3 and abs((word.end - word.start) - (before.end - before.start)) < 1e-3


def _align_stretch(decoder: Decoder, track: media.Sound, words: list[Word]) -> Placed:
    start = max(words[0].start - _MARGIN_SECONDS, 0.0)
    seconds = words[-1].end + _MARGIN_SECONDS - start
    heard = track.read(int(start * SAMPLE_RATE), int(seconds * SAMPLE_RATE))
    spelled = [word.text.strip(string.punctuation).lower() for word in words]
    known = [i for i, text in enumerate(spelled) if text and decoder.lookup_word(text) is not None]
    found = _decode(decoder, heard, [spelled[i] for i in known]) if seconds <= _LONGEST_SECONDS else None
    if not found:
        return Placed(words, [0.0] * len(words))
    times = {i: (start + first, start + last, sure) for i, (first, last, sure) in zip(known, found, strict=True)}
    placed, confidences = [], []
    for i, word in enumerate(words):
        if i in times:
            first, last, sure = times[i]
            placed.append(Word(word.text, first, last))
            confidences.append(sure)
        else:
            placed.append(Word(word.text, *_between(times, i, words)))
            confidences.append(0.0)
    return Placed(placed, confidences)


def _decode(decoder: Decoder, heard: np.ndarray, words: list[str]) -> list[tuple[float, float, float]] | None:
    """Start, end and confidence of each word, seconds from the beginning of `heard`; `None` if they do not fit."""
    if not words or heard.size < SAMPLE_RATE * _FRAME_SECONDS * len(words):
        return None
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    decoder.process_raw(heard.tobytes(), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return None
    found = [
        (part.start_frame * _FRAME_SECONDS, (part.end_frame + 1) * _FRAME_SECONDS, min(float(part.prob), 1.0))
        for part in decoder.seg()
        if part.word[0] not in "<["
    ]
    return found if len(found) == len(words) else None


def _between(times: dict[int, tuple[float, float, float]], i: int, words: list[Word]) -> tuple[float, float]:
    """An unknown word's share of the time between the known ones around it."""
    before = max((k for k in times if k < i), default=None)
    after = min((k for k in times if k > i), default=None)
    first = times[before][1] if before is not None else min(words[0].start, times[after][0] if after else 0.0)
    last = times[after][0] if after is not None else max(words[-1].end, first)
    low = -1 if before is None else before
    high = len(words) if after is None else after
    step = max(last - first, 0.0) / (high - low - 1)
    return first + (i - low - 1) * step, first + (i - low) * step


def _in_order(words: list[Word]) -> list[Word]:
    """Words of neighbouring stretches may overlap by the margins; none starts before the one before it."""
    ordered: list[Word] = []
    for word in words:
        start = max(word.start, ordered[-1].start) if ordered else word.start
        ordered.append(Word(word.text, start, max(word.end, start)))
    return ordered
