"""Truncation of sequences that are too long (docs/spec/shards.md 13).

Masks are kept; words far from any mask are dropped first. Unlike the published policy, audio masks are protected as
well and the tokens of one audio span are kept or dropped together; `parity` restores the published policy.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from shards.reading.masking import Sequence
from shards.tokens import AUDIOSPAN, MASK, MASKAUDIO

_PROTECTED = 1e7
_SPREAD = 1e5


def truncate(sequence: Sequence, length: int, rng: np.random.Generator, rows: int, parity: bool) -> Sequence:
    """Return at most `length` entries of the sequence, in order; `rows` is the number of audio pointers."""
    if len(sequence) <= length:
        return sequence
    sequence = _trim_ends(sequence, length)
    if len(sequence) <= length:
        return sequence
    # One common draw per row, so that the words of a row tend to be kept or dropped together.
    score = rng.uniform(-_SPREAD, _SPREAD, rows)[sequence[:, 1]] + rng.gumbel(size=len(sequence))
    if parity:
        score[sequence[:, 0] == MASK] += _PROTECTED
        return sequence[np.sort(np.argsort(-score, kind="stable")[:length])]
    return sequence[_keep_whole(sequence, score, length)]


def _trim_ends(sequence: Sequence, length: int) -> Sequence:
    """Cut text before the first mask and everything after the last mask, evenly (steps 1 to 3)."""
    ids, n = sequence[:, 0], len(sequence)
    masks = np.flatnonzero((ids == MASK) | (ids == MASKAUDIO))
    fixed = np.flatnonzero((ids == MASK) | (ids == MASKAUDIO) | (ids == AUDIOSPAN))
    most_before = int(fixed[0]) if fixed.size else n
    most_after = n - 1 - int(masks[-1]) if masks.size else n - 1
    excess = n - length
    before = min(excess // 2, most_before)
    after = min(excess - before, most_after)
    before = min(excess - after, most_before)
    return sequence[before : n - after]


def _keep_whole(sequence: Sequence, score: Float[np.ndarray, "entries"], length: int) -> Bool[np.ndarray, "entries"]:
    """Return which entries are kept: every mask, then the words and whole audio spans with the highest scores."""
    ids = sequence[:, 0]
    keep = (ids == MASK) | (ids == MASKAUDIO)
    if keep.sum() > length:
        keep[np.flatnonzero(keep)[length:]] = False
    remaining = length - int(keep.sum())
    sound = ids == AUDIOSPAN
    starts = np.flatnonzero(~keep & ~(sound & np.roll(sound, 1) & (sequence[:, 1] == np.roll(sequence[:, 1], 1))))
    for start in starts[np.argsort(-score[starts], kind="stable")]:
        size = 1
        while sound[start] and start + size < len(ids) and sound[start + size] and _same_row(sequence, start, size):
            size += 1
        if size <= remaining and not keep[start]:
            keep[start : start + size] = True
            remaining -= size
    return keep


def _same_row(sequence: Sequence, start: int, size: int) -> bool:
    return bool(sequence[start, 1] == sequence[start + size, 1])
