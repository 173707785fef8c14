"""Which entries of a sequence that is too long must go (docs/spec/shards.md 13).

Masks survive, words far from any mask go first. Unlike the published policy, masks of sound are protected as well and
the tokens of one sound stay or go together; `parity` brings the published policy back.
"""

from __future__ import annotations

import numpy as np

from shards.tokens import AUDIOSPAN, MASK, MASKAUDIO

_PROTECTED = 1e7
_SPREAD = 1e5


def truncate(sequence: np.ndarray, length: int, rng: np.random.Generator, rows: int, parity: bool) -> np.ndarray:
    """At most `length` entries of the sequence `int32 [n, 3]`, in order; `rows` is the number of audio pointers."""
    if len(sequence) <= length:
        return sequence
    sequence = _trim_ends(sequence, length)
    if len(sequence) <= length:
        return sequence
    # One common draw per row, so that the words of a row tend to stay or go together.
    score = rng.uniform(-_SPREAD, _SPREAD, rows)[sequence[:, 1]] + rng.gumbel(size=len(sequence))
    if parity:
        score[sequence[:, 0] == MASK] += _PROTECTED
        return sequence[np.sort(np.argsort(-score, kind="stable")[:length])]
    return sequence[_keep_whole(sequence, score, length)]


def _trim_ends(sequence: np.ndarray, length: int) -> np.ndarray:
    """Steps 1 to 3: cut text before the first and anything after the last mask, evenly."""
    ids, n = sequence[:, 0], len(sequence)
    masks = np.flatnonzero((ids == MASK) | (ids == MASKAUDIO))
    fixed = np.flatnonzero((ids == MASK) | (ids == MASKAUDIO) | (ids == AUDIOSPAN))
    left = int(fixed[0]) if fixed.size else n
    right = n - 1 - int(masks[-1]) if masks.size else n - 1
    excess = n - length
    a = min(excess // 2, left)
    b = min(excess - a, right)
    a = min(excess - b, left)
    return sequence[a : n - b]


def _keep_whole(sequence: np.ndarray, score: np.ndarray, length: int) -> np.ndarray:
    """Which entries stay `bool [n]`: every mask, then the best words and whole runs of sound that fit."""
    ids = sequence[:, 0]
    keep = (ids == MASK) | (ids == MASKAUDIO)
    if keep.sum() > length:
        keep[np.flatnonzero(keep)[length:]] = False
    room = length - int(keep.sum())
    sound = ids == AUDIOSPAN
    starts = np.flatnonzero(~keep & ~(sound & np.roll(sound, 1) & (sequence[:, 1] == np.roll(sequence[:, 1], 1))))
    for start in starts[np.argsort(-score[starts], kind="stable")]:
        size = 1
        while sound[start] and start + size < len(ids) and sound[start + size] and _same_row(sequence, start, size):
            size += 1
        if size <= room and not keep[start]:
            keep[start : start + size] = True
            room -= size
    return keep


def _same_row(sequence: np.ndarray, start: int, size: int) -> bool:
    return bool(sequence[start, 1] == sequence[start + size, 1])
