"""Web text in the shape of speech: spans of spoken lengths, some of them masked (docs/spec/shards.md 12)."""

from __future__ import annotations

import numpy as np

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
"""How often a spoken span has 1, 2, ..., 15 tokens, in the two published corpora."""

INVALID_WEIGHT = 0.2
"""How likely a row with a token that speech does not have is masked, compared with others."""

_SAFETY = 0.85


def mask_text(
    tokens: np.ndarray, valid: np.ndarray, base: int, shape: TextShape, rng: np.random.Generator
) -> tuple[Sequence, list[np.ndarray]]:
    """The masked sequence of one text, and the words of each mask without those that speech does not have.

    `valid bool [vocabulary]` tells which tokens speech has. A text with too few rows has fewer masks.
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


def _span_lengths(available: int, shape: TextShape, rng: np.random.Generator) -> np.ndarray:
    shares = np.array(SPAN_LENGTHS[shape.statistics])
    mean = float((shares * np.arange(1, shares.size + 1)).sum())
    wanted = min(shape.limit + int((_SAFETY * mean - 1) * shape.budget), available)
    lengths = 1 + np.searchsorted(np.cumsum(shares)[:-1], rng.random(wanted), side="right")
    return lengths[np.cumsum(lengths) <= wanted]


def _choose_rows(
    tokens: np.ndarray, lengths: np.ndarray, valid: np.ndarray, budget: int, rng: np.random.Generator
) -> np.ndarray:
    """The masked rows, ascending: drawn without replacement in proportion to their weight (Gumbel top-k)."""
    if not lengths.size:
        return np.zeros(0, np.int64)
    starts = np.cumsum(lengths) - lengths
    spoken = np.logical_and.reduceat(valid[tokens], starts)
    score = np.log(np.where(spoken, 1.0, INVALID_WEIGHT)) + rng.gumbel(size=lengths.size)
    return np.sort(np.argsort(-score, kind="stable")[:budget])


def _with_context(body: Sequence, left: np.ndarray, right: np.ndarray, rows: int, limit: int) -> Sequence:
    need = max(limit - len(body), 0)
    before = left[left.size - min(left.size, need // 2) :]
    after = right[: min(right.size, (need + 1) // 2)]
    return np.concatenate([_unmasked(before, 0), body, _unmasked(after, rows)])


def _unmasked(tokens: np.ndarray, pointer: int) -> Sequence:
    out = np.empty((tokens.size, 3), np.int32)
    out[:, 0], out[:, 1], out[:, 2] = tokens, pointer, -1
    return out
