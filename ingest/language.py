"""Which language a text is in, and how surely.

The rule of the published corpus looks at title, description and words together (docs/spec/ingest.md 5.1). Who
identifies is one function; docs/better_data.md has its confusions on texts of several lengths, which the threshold was
chosen by.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from ingest.captions import Word

Identify = Callable[[str], tuple[str, float]]
"""Gives a text's most likely language, as ISO 639-1 writes it, and its probability."""

_LOOKED_AT = 1024
"""Bytes of a text that are looked at."""


def identify(text: str) -> tuple[str, float]:
    """The answer of py3langid, whose model is in its package."""
    # Shouting is not another language, and the identifier was trained on ordinary case.
    language, probability = _identifier().classify(text.lower().encode()[:_LOOKED_AT].decode(errors="ignore"))
    return language, float(probability)


def language_of(title: str, description: str, words: list[Word], identify: Identify = identify) -> tuple[str, float]:
    """The most likely language of a video's text and its probability."""
    plain = [t for t in description.split() if not any(mark in t for mark in ("#", "http", "@", "www"))]
    parts = [title, *([" ".join(plain[:100])] if description else []), " ".join(w.text for w in words[:400])]
    return identify("\n".join(parts))


@functools.cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
