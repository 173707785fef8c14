"""Web text in the form of speech: spans with the lengths of speech, some of them masked (docs/spec/shards.md 12)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32, Int64

from shards.reading.config import TextShape
from shards.reading.masking import TARGET, TEXT, Sequence, masked_sequence, row_tokens
from shards.tokens import MASK

SPAN_LENGTHS = {
    "v1": (
        (0.0210583, 0.03984984, 0.06506665, 0.09467365, 0.12138153, 0.13305461, 0.12973022, 0.11296043)
        + (0.09024, 0.06730134, 0.04789645, 0.03232633, 0.02123288, 0.01397406, 0.00925371)
    ),
    "v2": (
        (0.03233136, 0.05236081, 0.08763368, 0.11757072, 0.13737426, 0.13717706, 0.12541218, 0.10262764)
        + (0.0771088, 0.05364242, 0.0342899, 0.0203823, 0.01177542, 0.00664939, 0.00366406)
    ),
}
"""Probability that a spoken span has 1, 2, ..., 15 tokens, in the two published corpora."""

INVALID_WEIGHT = 0.2
"""Relative weight of masking a row with a token that does not occur in speech."""

_SAFETY = 0.85


def mask_text(
    tokens: Int32[np.ndarray, "tokens"],
    valid: Bool[np.ndarray, "vocabulary"],
    base: int,
    shape: TextShape,
    rng: np.random.Generator,
) -> tuple[Sequence, list[Int32[np.ndarray, "_"]]]:
    """Return the masked sequence of one text, and the valid tokens of each mask.

    `valid` are the tokens that occur in speech; masks point to the text spans `base`, `base + 1`, ... A text with too
    few rows has fewer masks.
    """
    lengths = _span_lengths(tokens.size, shape, rng)
    total = int(lengths.sum())
    offset = int(rng.integers(max(tokens.size - total, 1)))
    middle = tokens[offset : offset + total]
    chosen = _choose_rows(middle, lengths, valid, shape.budget, rng)
    kinds = np.full(lengths.size, TEXT)
    kinds[chosen] = TARGET
    body = masked_sequence(middle, lengths, kinds, base, (MASK,), 0)
    sequence = _with_context(body, tokens[:offset], tokens[offset + total :], lengths.size, shape.limit)
    spans = [words[valid[words]] for words in row_tokens(middle, lengths, chosen)]
    if not shape.parity:
        sequence = sequence[: shape.limit]
        spans = spans[: int((sequence[:, 0] == MASK).sum())]
    return sequence[: shape.length], spans


def _span_lengths(available: int, shape: TextShape, rng: np.random.Generator) -> Int64[np.ndarray, "rows"]:
    shares = np.array(SPAN_LENGTHS[shape.statistics])
    mean = float((shares * np.arange(1, shares.size + 1)).sum())
    total = min(shape.limit + int((_SAFETY * mean - 1) * shape.budget), available)
    lengths = 1 + np.searchsorted(np.cumsum(shares)[:-1], rng.random(total), side="right")
    return lengths[np.cumsum(lengths) <= total]


def _choose_rows(
    tokens: Int32[np.ndarray, "tokens"],
    lengths: Int64[np.ndarray, "rows"],
    valid: Bool[np.ndarray, "vocabulary"],
    budget: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "chosen"]:
    """Return the masked rows, ascending: drawn without replacement in proportion to their weight (Gumbel top-k)."""
    if not lengths.size:
        return np.zeros(0, np.int64)
    starts = np.cumsum(lengths) - lengths
    spoken = np.logical_and.reduceat(valid[tokens], starts)
    score = np.log(np.where(spoken, 1.0, INVALID_WEIGHT)) + rng.gumbel(size=lengths.size)
    return np.sort(np.argsort(-score, kind="stable")[:budget])


def _with_context(
    body: Sequence, before: Int32[np.ndarray, "before"], after: Int32[np.ndarray, "after"], rows: int, limit: int
) -> Sequence:
    free = max(limit - len(body), 0)
    head = before[before.size - min(before.size, free // 2) :]
    tail = after[: min(after.size, (free + 1) // 2)]
    return np.concatenate([_unmasked(head, 0), body, _unmasked(tail, rows)])


def _unmasked(tokens: Int32[np.ndarray, "tokens"], pointer: int) -> Sequence:
    out = np.empty((tokens.size, 3), np.int32)
    out[:, 0], out[:, 1], out[:, 2] = tokens, pointer, -1
    return out
