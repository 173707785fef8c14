"""Rules that a video must keep before anything is decoded, each with its score and its switch.

The rules and thresholds are those of the published corpus (spec ingest.md 5 and 6). A rule whose threshold is `None` is
off; the scores are computed and recorded all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.captions import Word
from ingest.outcomes import Outcome


@dataclass(frozen=True)
class FilterConfig:
    """Thresholds; `None` (or an empty list) switches a rule off."""

    max_seconds: float | None = 1200.0
    excluded_categories: tuple[str, ...] = ()
    min_words_per_30s: int | None = 50
    min_language_probability: float | None = 0.8
    min_good_words: float | None = 0.6
    max_length_variance: float | None = 10.0


@dataclass(frozen=True)
class Facts:
    """What the rules look at. `duration` in seconds, `None` if nobody knows it."""

    words: list[Word]
    duration: float | None
    title: str
    description: str
    categories: list[str]
    language: str


def words_per_30s(words: list[Word]) -> list[int]:
    """How many words start in each half minute, up to the last word."""
    if not words:
        return [0]
    starts = np.array([w.start for w in words])
    bins = np.maximum(np.floor_divide(starts, 30), 0).astype(int)
    return np.bincount(bins).tolist()


def good_word_share(words: list[Word]) -> float:
    """Share of words that are neither shouted nor hold a blank, as the words of an ASR track are."""
    bad = sum((len(w.text) > 1 and w.text.isupper()) or "\n" in w.text or " " in w.text for w in words)
    return 1 - bad / len(words) if words else 0.0


def length_variance(words: list[Word]) -> float | None:
    """Sample variance of the words' lengths in characters; `None` for fewer than two words."""
    if len(words) < 2:
        return None
    return float(np.var([len(w.text) for w in words], ddof=1))


def language_of(title: str, description: str, words: list[Word]) -> tuple[str, float]:
    """The most likely language of a video's text and its probability (spec ingest.md 5.1, first 1,024 bytes)."""
    plain = [t for t in description.split() if not any(mark in t for mark in ("#", "http", "@", "www"))]
    text = "\n".join([title, *([" ".join(plain[:100])] if description else []), " ".join(w.text for w in words[:400])])
    # Shouting is not another language, and the identifier was trained on ordinary case.
    language, probability = _identifier().classify(text.lower().encode()[:1024].decode(errors="ignore"))
    return language, float(probability)


@functools.cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def judge(facts: Facts, config: FilterConfig) -> tuple[Outcome | None, dict[str, Any]]:
    """The first rule that the video breaks, if any, and every score."""
    language, probability = language_of(facts.title, facts.description, facts.words)
    scores: dict[str, Any] = {
        "duration": facts.duration,
        "words": len(facts.words),
        "words_per_30s": max(words_per_30s(facts.words)),
        "language": language,
        "language_probability": round(probability, 4),
        "good_words": round(good_word_share(facts.words), 4),
        "length_variance": length_variance(facts.words),
    }
    rules: list[tuple[Outcome, Any, Callable[[Any], bool]]] = [
        (Outcome.TOO_LONG, config.max_seconds, lambda limit: facts.duration > limit),
        (Outcome.CATEGORY, config.excluded_categories, lambda bad: not set(bad).isdisjoint(facts.categories)),
        (Outcome.SPARSE_SPEECH, config.min_words_per_30s, lambda least: scores["words_per_30s"] < least),
        (
            Outcome.OTHER_LANGUAGE,
            config.min_language_probability,
            lambda least: language != facts.language or probability < least,
        ),
        (Outcome.BAD_WORDS, config.min_good_words, lambda least: scores["good_words"] < least),
        (
            Outcome.UNEVEN_WORDS,
            config.max_length_variance,
            lambda most: scores["length_variance"] is not None and scores["length_variance"] > most,
        ),
    ]
    if not facts.words:
        return Outcome.NO_WORDS, scores
    if facts.duration is None:
        return Outcome.DURATION_UNKNOWN, scores
    for outcome, threshold, breaks in rules:
        if threshold not in (None, ()) and breaks(threshold):
            return outcome, scores
    return None, scores
