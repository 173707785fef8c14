"""Give the times of ASR words to a better text of the same speech.

Uploaded captions are well spelt but timed by the cue; ASR words are timed but misheard. Dynamic time warping over word
edit distances carries each uploaded word to the ASR word it was spoken with (docs/spec/ingest.md 9), in a band around
the diagonal so that memory grows with the length times the band and not with its square.
"""

from __future__ import annotations

import string

import numpy as np

_OUTSIDE = 9999
_ROWS = 256
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def align(asr: list[str], other: list[str]) -> list[str]:
    """Return one string per ASR word: the words of `other` spoken with it, joined by a space, possibly none."""
    slots: list[list[str]] = [[] for _ in asr]
    if asr and other:
        band = int(max(0.1 * len(asr), 32))
        other = other[: len(asr) + band]
        # Past the band no cell is in reach: those ASR words have no partner, whatever they cost.
        rows = min(len(asr), len(other) + band)
        # Compiled code is loaded by those who align only: it costs a decoder 70 MB and most of a second.
        from ingest.dynamic_time_warping import back_steps

        steps = back_steps(_banded_costs(asr[:rows], other, band), len(other))
        last = -1
        for row, column in _path(steps, rows, len(other), band):
            if column > last:
                slots[row].append(other[column])
                last = column
    return [" ".join(slot) for slot in slots]


def _plain(word: str) -> str:
    return word.translate(_NO_PUNCTUATION).strip().lower()


def _banded_costs(asr: list[str], other: list[str], band: int) -> np.ndarray:
    """`int32 [rows, 2 * band + 1]`: cell `[i, k]` is the distance of words `i` and `i - band + k`."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    left, right = [_plain(w) for w in asr], [_plain(w) for w in other]
    costs = np.full((len(left), 2 * band + 1), _OUTSIDE, np.int32)
    for top in range(0, len(left), _ROWS):
        rows = left[top : top + _ROWS]
        first = max(top - band, 0)
        columns = right[first : top + len(rows) + band]
        unique_rows, row_of = np.unique(np.array(rows, object), return_inverse=True)
        unique_columns, column_of = np.unique(np.array(columns, object), return_inverse=True)
        distances = cdist(list(unique_rows), list(unique_columns), scorer=Levenshtein.distance, dtype=np.int32)
        for i in range(top, top + len(rows)):
            start, stop = max(i - band, 0), min(i + band, len(right))
            if stop > start:
                block = distances[row_of[i - top], column_of[start - first : stop - first]]
                costs[i, start - i + band : stop - i + band] = block
    return costs


def _path(steps: np.ndarray, rows: int, columns: int, band: int) -> list[tuple[int, int]]:
    i, j = rows - 1, columns - 1
    path = [(i, j)]
    while i or j:
        step = steps[i, j - i + band]
        i, j = i - (step != 2), j - (step != 1)
        path.append((i, j))
    return path[::-1]
