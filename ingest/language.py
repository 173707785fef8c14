"""Identify the language of a text and its probability.

The rule of the published corpus combines title, description and words (docs/spec/ingest.md 5.1). docs/better_data.md
has the confusions of the identifier on texts of several lengths, by which the threshold was chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from ingest.captions import Word

Identify = Callable[[str], tuple[str, float]]
"""Returns the most likely language of a text, in ISO 639-1, and its probability."""

_PREFIX_BYTES = 1024
"""Number of bytes of a text that are evaluated."""


def identify(text: str) -> tuple[str, float]:
    """Identify the language with py3langid, whose model is in its package."""
    # Lower-cased, because the identifier was not trained on upper-case text.
    language, probability = _identifier().classify(text.lower().encode()[:_PREFIX_BYTES].decode(errors="ignore"))
    return language, float(probability)


def language_of(title: str, description: str, words: list[Word], identify: Identify = identify) -> tuple[str, float]:
    """Return the most likely language of a video's text and its probability."""
    plain = [t for t in description.split() if not any(mark in t for mark in ("#", "http", "@", "www"))]
    parts = [title, *([" ".join(plain[:100])] if description else []), " ".join(w.text for w in words[:400])]
    return identify("\n".join(parts))


@functools.cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
