"""Correct the times of ASR words with a small published network.

Its input is eighteen features of a word and its neighbours (docs/spec/ingest.md 10), its output a start and an end
offset. Neighbouring words then share a border, so that adjacent words remain adjacent.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from ingest.captions import Word
from shards.storage.errors import UserError

_PADS = (1.0, 0.0, 0.0, 0.1, 0.0, 0.0)
_LIMIT = 0.5
SHAPES = {
    "mapping.0.weight": (32, 18),
    "mapping.0.bias": (32,),
    "mapping.2.weight": (32, 32),
    "mapping.2.bias": (32,),
    "mapping.4.weight": (2, 32),
    "mapping.4.bias": (2,),
    "temp": (2,),
    "bias": (2,),
    "mean": (18,),
    "std": (18,),
}
_VOWELS = frozenset("aeiouAEIOU")
_PUNCTUATION = re.compile(r"\W")


class TimingModelError(UserError):
    """A file is not a valid timing model; the message names it."""


def features(words: list[Word], piece_counts: list[int]) -> Float32[np.ndarray, "n 18"]:
    """Return six features of each word, of its left and of its right neighbour (docs/spec/ingest.md 10)."""
    own = np.array(
        [
            (
                len(w.text),
                pieces,
                w.text[:1].isupper(),
                w.end - w.start,
                sum(c in _VOWELS for c in w.text),
                len(_PUNCTUATION.findall(w.text)),
            )
            for w, pieces in zip(words, piece_counts, strict=True)
        ],
        np.float64,
    ).reshape(len(words), 6)
    pad = np.array([_PADS])
    left = np.concatenate([pad, own[:-1]])[: len(words)]
    right = np.concatenate([own[1:], pad])[: len(words)]
    return np.stack([own, left, right], axis=2).reshape(len(words), 18).astype(np.float32)


@dataclass(frozen=True)
class TimingModel:
    """The weights, float32, keyed as in the published file."""

    weights: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: str | Path) -> TimingModel:
        """Read the published JSON file. Raises `TimingModelError` naming the missing or invalid part."""
        try:
            raw = json.loads(Path(path).read_text())
            weights = {name: np.array(raw[name], np.float32).reshape(shape) for name, shape in SHAPES.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TimingModelError(f"{path} is not a timing model: {type(error).__name__}: {error}") from None
        return cls(weights)

    def offsets(self, words: list[Word], piece_counts: list[int]) -> Float32[np.ndarray, "n 2"]:
        """Return the seconds to add to each word's start and end; `piece_counts` are tokens per word."""
        w = self.weights
        x = (features(words, piece_counts) - w["mean"]) / w["std"]
        x = np.maximum(x @ w["mapping.0.weight"].T + w["mapping.0.bias"], 0)
        x = np.maximum(x @ w["mapping.2.weight"].T + w["mapping.2.bias"], 0)
        x = x @ w["mapping.4.weight"].T + w["mapping.4.bias"]
        return np.tanh(x) * np.exp(w["temp"]) + w["bias"]

    def correct(self, words: list[Word], piece_counts: list[int]) -> list[Word]:
        """Return the words with corrected times; word `i` ends where its border with word `i + 1` moved."""
        if not words:
            return []
        shifts = border_shifts(self.offsets(words, piece_counts)).tolist()
        return [Word(w.text, w.start + shifts[i], w.end + shifts[i + 1]) for i, w in enumerate(words)]


def border_shifts(offsets: Float32[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n+1"]:
    """Return the shift of every border between words: the mean of its two sides, at most half a second."""
    offsets = offsets.astype(np.float64)
    inner = (offsets[1:, 0] + offsets[:-1, 1]) / 2
    return np.clip(np.concatenate([offsets[:1, 0], inner, offsets[-1:, 1]]), -_LIMIT, _LIMIT)
