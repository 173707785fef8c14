"""Filter rules that are evaluated before anything is decoded, each with a score and a threshold.

The rules and thresholds are those of the published corpus (docs/spec/ingest.md 5 and 6). A rule whose threshold is
`None` is off; its score is recorded anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.captions import LATEST_SECONDS, Word
from ingest.config import FilterConfig
from ingest.language import language_of
from shards.outcomes import Outcome


@dataclass(frozen=True)
class Facts:
    """Input of the rules. `duration` is in seconds, `None` if unknown."""

    words: list[Word]
    duration: float | None
    title: str
    description: str
    categories: list[str]
    language: str


def words_per_30s(words: list[Word]) -> list[int]:
    """Return the number of words that start in each 30 seconds, up to the last start before `LATEST_SECONDS`."""
    starts = np.array([w.start for w in words if w.start <= LATEST_SECONDS])
    if not starts.size:
        return [0]
    bins = np.maximum(np.floor_divide(starts, 30), 0).astype(int)
    return np.bincount(bins).tolist()


def good_word_share(words: list[Word]) -> float:
    """Return the share of words that are neither upper-case nor contain a blank, as in an ASR track."""
    bad = sum((len(w.text) > 1 and w.text.isupper()) or "\n" in w.text or " " in w.text for w in words)
    return 1 - bad / len(words) if words else 0.0


def length_variance(words: list[Word]) -> float | None:
    """Return the sample variance of the words' lengths in characters; `None` for fewer than two words."""
    if len(words) < 2:
        return None
    return float(np.var([len(w.text) for w in words], ddof=1))


def apply_filters(facts: Facts, config: FilterConfig) -> tuple[Outcome | None, dict[str, Any]]:
    """Return the first rule that the video's text and metadata violate, if any, and every score."""
    language, probability = language_of(facts.title, facts.description, facts.words)
    scores: dict[str, Any] = {
        "duration": facts.duration,
        "categories": facts.categories,
        "words": len(facts.words),
        "words_per_30s": max(words_per_30s(facts.words)),
        "language": language,
        "language_probability": round(probability, 4),
        "good_words": round(good_word_share(facts.words), 4),
        "length_variance": length_variance(facts.words),
    }
    return broken_rule(scores, facts.language, config), scores


def broken_rule(scores: dict[str, Any], language: str, config: FilterConfig) -> Outcome | None:
    """Return the first rule that a video with these scores violates, in the order of the job.

    Rules without a score are skipped.
    """
    if scores.get("words") == 0:
        return Outcome.NO_WORDS
    if "duration" in scores and scores["duration"] is None:
        return Outcome.DURATION_UNKNOWN
    foreign = scores.get("language", language) != language
    least_certain = config.min_language_probability
    rules = (
        (Outcome.TOO_LONG, _above(scores, "duration", config.max_seconds)),
        (Outcome.CATEGORY, not set(config.excluded_categories).isdisjoint(scores.get("categories", ()))),
        (Outcome.SPARSE_SPEECH, _below(scores, "words_per_30s", config.min_words_per_30s)),
        (
            Outcome.OTHER_LANGUAGE,
            least_certain is not None and (foreign or _below(scores, "language_probability", least_certain)),
        ),
        (Outcome.BAD_WORDS, _below(scores, "good_words", config.min_good_words)),
        (Outcome.UNEVEN_WORDS, _above(scores, "length_variance", config.max_length_variance)),
        (Outcome.TOO_ALIKE, _above(scores, "similarity", config.max_similarity)),
        (Outcome.TOO_EMPTY, _below(scores, "objects", config.min_objects)),
    )
    return next((outcome for outcome, broken in rules if broken), None)


def _above(scores: dict[str, Any], name: str, most: float | None) -> bool:
    return most is not None and scores.get(name) is not None and scores[name] > most


def _below(scores: dict[str, Any], name: str, least: float | None) -> bool:
    return least is not None and scores.get(name) is not None and scores[name] < least
