"""Forced alignment: the times of the words of a known text in the sound.

The text is split at caption borders into parts of some seconds, and an acoustic model aligns the words of each part. No
path is pruned: a known text has few paths, so all of them can be kept even in noise.

An aligner aligns any text with any sound. `Evidence` measures whether the text was spoken: it compares the likelihood
with that of the best phonemes and of the same words in reverse order, and estimates the probability that a word is at
its aligned time, calibrated by `python -m benchmarks.alignment`.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int16

from ingest import media
from ingest.captions import Word
from shards.storage.errors import UserError

if TYPE_CHECKING:
    from pocketsphinx import Decoder

SAMPLE_RATE = 16_000
_LANGUAGE = "en"
"""The language of the acoustic model, by which the audio track is selected."""

_FRAME_SECONDS = 0.01
_MARGIN_SECONDS = 0.2
_STRETCH_SECONDS = 12.0
_LONGEST_SECONDS = 60.0
_LEAST_CONFIDENCE = 0.5
_LEAST_SHARE = 0.5
_NEIGHBOURS = 2
_NATS = 1024.0
"""The decoder's log likelihoods are shifted by ten bits."""


class AlignerMissingError(UserError):
    """The package with the acoustic model is not installed."""


class ForcedAlignmentError(ValueError):
    """The text does not match the sound; the message has the number of recognised words."""


@dataclass(frozen=True)
class Evidence:
    """Likelihood of a word at its aligned time, in nats per frame of 10 ms.

    `fit` is the log likelihood of the word and two words on each side of it, relative to the likeliest phonemes.
    `gain` is the increase of the log likelihood over the same words in reverse order.
    """

    fit: float
    gain: float

    @property
    def confidence(self) -> float:
        """The probability that the word starts within 0.1 s of its aligned time."""
        bias, fit, gain = CALIBRATION
        return 1 / (1 + math.exp(-(bias + fit * self.fit + gain * self.gain)))


CALIBRATION = (6.424, 1.279, 2.849)
"""Logistic regression on synthetic voices with correct, wrong and no text in noise (docs/better_data.md)."""


@dataclass(frozen=True)
class Placed:
    """Words with their aligned times, and the evidence for each; `None` for a word that was not aligned."""

    words: list[Word]
    evidence: list[Evidence | None]

    @property
    def confidences(self) -> list[float]:
        """The probability of each word that it starts at its aligned time; 0 without evidence."""
        return [evidence.confidence if evidence else 0.0 for evidence in self.evidence]


@functools.lru_cache(maxsize=1)
def load() -> Decoder:
    """Load the aligner with the English model of its package. Raises `AlignerMissingError`."""
    if importlib.util.find_spec("pocketsphinx") is None:
        raise AlignerMissingError("forced alignment needs the package pocketsphinx; install the extra [asr]")
    from pocketsphinx import Decoder

    # Scores are relative to the best phoneme only if those of all phonemes are computed.
    beams = {"beam": 0.0, "wbeam": 0.0, "pbeam": 0.0, "compallsen": True}
    return Decoder(lm=None, samprate=SAMPLE_RATE, bestpath=False, loglevel="FATAL", **beams)


def align(path: str, words: list[Word]) -> Placed:
    """Align words, which have the times of their captions, with the sound of a media file.

    A part whose text is probably not spoken keeps the times of its captions. Raises `ForcedAlignmentError` if fewer
    than half of the words are aligned, `MediaError` if the sound cannot be read.
    """
    placed = [
        stretch if np.mean(stretch.confidences) >= _LEAST_CONFIDENCE else Placed(before, stretch.evidence)
        for before, stretch in place(path, words)
    ]
    confidences = [confidence for stretch in placed for confidence in stretch.confidences]
    confident = sum(confidence >= _LEAST_CONFIDENCE for confidence in confidences)
    if not words or confident < _LEAST_SHARE * len(words):
        raise ForcedAlignmentError(f"{confident} of {len(words)} words were recognised in the sound")
    moved = [word for stretch in placed for word in stretch.words]
    return Placed(_in_order(moved), [evidence for stretch in placed for evidence in stretch.evidence])


def place(path: str, words: list[Word]) -> Iterator[tuple[list[Word], Placed]]:
    """Align every part of a text with the sound of a media file; yield its words before and after."""
    decoder = load()
    with media.sound(path, SAMPLE_RATE, _LANGUAGE) as track:
        for stretch in stretches(words):
            yield stretch, _align_stretch(decoder, track, stretch)


def stretches(words: list[Word]) -> Iterator[list[Word]]:
    """Split words into parts of whole captions that start within twelve seconds.

    Words of one caption share its time evenly, so a word of another length, or after a gap, starts a new caption.
    """
    part: list[Word] = []
    for before, word in zip([None, *words], words, strict=False):
        if part and before and word.start - part[0].start >= _STRETCH_SECONDS and not _same_caption(before, word):
            yield part
            part = []
        part.append(word)
    if part:
        yield part


def _same_caption(before: Word, word: Word) -> bool:
    return abs(word.start - before.end) < 1e-3 and abs((word.end - word.start) - (before.end - before.start)) < 1e-3


def _align_stretch(decoder: Decoder, track: media.Sound, words: list[Word]) -> Placed:
    start = max(words[0].start - _MARGIN_SECONDS, 0.0)
    seconds = words[-1].end + _MARGIN_SECONDS - start
    samples = track.read(int(start * SAMPLE_RATE), int(seconds * SAMPLE_RATE))
    spelled = [word.text.strip(string.punctuation).lower() for word in words]
    known = [i for i, text in enumerate(spelled) if text and decoder.lookup_word(text) is not None]
    texts = [spelled[i] for i in known]
    # Digital silence matches every text equally.
    audible = seconds <= _LONGEST_SECONDS and bool(samples.any())
    aligned_words = _decode(decoder, samples, texts) if audible else None
    if not aligned_words:
        return Placed(words, [None] * len(words))
    reverse = _decode(decoder, samples, texts[::-1])
    gain = _fit(aligned_words) - _fit(reverse) if reverse else 0.0
    by_word = dict(zip(known, aligned_words, strict=True))
    times = {i: (start + aligned.start, start + aligned.end) for i, aligned in by_word.items()}
    placed: list[Word] = []
    evidence: list[Evidence | None] = []
    for i, word in enumerate(words):
        if i in by_word:
            near = [by_word[j] for j in range(i - _NEIGHBOURS, i + _NEIGHBOURS + 1) if j in by_word]
            placed.append(Word(word.text, *times[i]))
            evidence.append(Evidence(float(np.mean([_fit([aligned]) for aligned in near])), gain))
        else:
            placed.append(Word(word.text, *_between(times, i, words)))
            evidence.append(None)
    return Placed(placed, evidence)


@dataclass(frozen=True)
class _Aligned:
    """An aligned word: start and end in seconds, and its log likelihood in nats."""

    start: float
    end: float
    likelihood: float


def _decode(decoder: Decoder, samples: Int16[np.ndarray, "samples"], words: list[str]) -> list[_Aligned] | None:
    """Return the alignment of the words, relative to the start of `samples`; `None` if they cannot be aligned."""
    if not words or samples.size < SAMPLE_RATE * _FRAME_SECONDS * len(words):
        return None
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return None
    aligned = [
        _Aligned(
            part.start_frame * _FRAME_SECONDS,
            (part.end_frame + 1) * _FRAME_SECONDS,
            _NATS * math.log(max(part.ascore, sys.float_info.min)),
        )
        for part in decoder.seg()
        if part.word[0] not in "<["
    ]
    return aligned if len(aligned) == len(words) else None


def _fit(words: list[_Aligned]) -> float:
    """Return the log likelihood of words, in nats per frame."""
    frames = sum(word.end - word.start for word in words) / _FRAME_SECONDS
    return sum(word.likelihood for word in words) / frames


def _between(times: dict[int, tuple[float, float]], i: int, words: list[Word]) -> tuple[float, float]:
    """Return start and end of an unknown word: its share of the time between the known ones around it."""
    before = max((k for k in times if k < i), default=None)
    after = min((k for k in times if k > i), default=None)
    first = times[before][1] if before is not None else min(words[0].start, times[after][0] if after else 0.0)
    last = times[after][0] if after is not None else max(words[-1].end, first)
    low = -1 if before is None else before
    high = len(words) if after is None else after
    step = max(last - first, 0.0) / (high - low - 1)
    return first + (i - low - 1) * step, first + (i - low) * step


def _in_order(words: list[Word]) -> list[Word]:
    """Return the words with increasing starts; those of neighbouring parts may overlap by the margins."""
    ordered: list[Word] = []
    for word in words:
        start = max(word.start, ordered[-1].start) if ordered else word.start
        ordered.append(Word(word.text, start, max(word.end, start)))
    return ordered
