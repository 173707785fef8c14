"""What the network must guess: rows of tokens per audio span, the targets among them, and the masked sequences.

A row is the text spoken during one audio span. Rows never hold tokens themselves; they are lengths over one flat list
of tokens, so that moving a border moves words without ever losing or reordering one (docs/spec/shards.md 8 to 11).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shards.tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PADDING

WIDENING_SECONDS = 0.125
"""How far past a target's sound a word may begin and still be masked with it (docs/spec/shards.md 10.2)."""

Sequence = np.ndarray
"""`int32 [n, 3]`: token id, audio pointer, text pointer."""

TEXT, TARGET, AUDIO = 0, 1, 2
"""What stands in a sequence for a row: its tokens, a mask, or its sound."""


@dataclass(frozen=True)
class Rows:
    """The words of an example by audio span.

    `tokens int32 [n]` in spoken order, `centres float32 [n]` their times on the clock of the example, `lengths int64
    [rows]`; `starts` and `ends float32 [rows]` are the spans' own times on that clock. `joined bool [rows]` says
    whether words may move between a row and the one before it.
    """

    tokens: np.ndarray
    centres: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    joined: np.ndarray

    def offsets(self) -> np.ndarray:
        """Where each row starts in the flat list, and its end: `int64 [rows + 1]`."""
        return np.concatenate([[0], np.cumsum(self.lengths)])


def assign(centres: np.ndarray, span_centres: np.ndarray) -> np.ndarray:
    """The span of each token of one segment `int64 [n]`: the nearest one, never stepping back."""
    if not centres.size:
        return np.zeros(0, np.int64)
    return np.maximum.accumulate(np.abs(centres[:, None] - span_centres).argmin(axis=1))


def choose_targets(rng: np.random.Generator, rows: int, sequences: int, per_sequence: int) -> list[np.ndarray]:
    """Disjoint sorted sets of target rows, one per sequence."""
    shuffled = np.argsort(rng.random(rows))
    return [np.sort(shuffled[i * per_sequence : (i + 1) * per_sequence]) for i in range(sequences)]


def reassign_empty(lengths: np.ndarray, target: np.ndarray, joined: np.ndarray, right_to_left: bool) -> np.ndarray:
    """One pass of docs/spec/shards.md 10.1: rows next to an empty target give it a word; the new lengths."""
    empty_target = target & (lengths == 0)
    able = ~target & (lengths >= 2)
    gives = np.zeros_like(target)
    if right_to_left:
        gives[1:] = able[1:] & empty_target[:-1] & joined[1:]
    else:
        gives[:-1] = able[:-1] & empty_target[1:] & joined[1:]
    return _moved(lengths, gives, right_to_left)


def widen_targets(rows: Rows, target: np.ndarray, right_to_left: bool) -> np.ndarray:
    """Targets take a word that touches their sound from a neighbour; the new lengths.

    See docs/spec/shards.md 10.2.
    """
    able = ~target & (rows.lengths >= 2)
    first, last = _extremes(rows)
    gives = np.zeros_like(target)
    if right_to_left:
        gives[1:] = able[1:] & target[:-1] & rows.joined[1:] & (first[1:] < rows.ends[:-1] + WIDENING_SECONDS)
    else:
        gives[:-1] = able[:-1] & target[1:] & rows.joined[1:] & (last[:-1] > rows.starts[1:] - WIDENING_SECONDS)
    return _moved(rows.lengths, gives, right_to_left)


def _moved(lengths: np.ndarray, gives: np.ndarray, right_to_left: bool) -> np.ndarray:
    return lengths - gives + np.roll(gives, -1 if right_to_left else 1)


def _extremes(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The earliest and the latest word of each row; infinite for empty rows."""
    first = np.full(rows.lengths.size, np.inf, np.float32)
    last = np.full(rows.lengths.size, -np.inf, np.float32)
    filled = rows.lengths > 0
    if filled.any():
        starts = rows.offsets()[:-1][filled]
        first[filled] = np.minimum.reduceat(rows.centres, starts)
        last[filled] = np.maximum.reduceat(rows.centres, starts)
    return first, last


def textual_neighbours(target: np.ndarray, same_video: np.ndarray, draws: np.ndarray, probability: float) -> np.ndarray:
    """Rows beside a target that are shown as text; `draws float [rows]` in [0, 1) decide for each.

    See docs/spec/shards.md 11.
    """
    beside = np.zeros_like(target)
    beside[:-1] |= target[1:] & same_video[1:]
    beside[1:] |= target[:-1] & same_video[1:]
    return beside & ~target & (draws < probability)


def masked_sequence(
    tokens: np.ndarray, lengths: np.ndarray, kinds: np.ndarray, base: int, mask: tuple[int, ...], audio_tokens: int
) -> Sequence:
    """All rows in order, each as its kind says; targets point to text spans `base`, `base + 1`, ..."""
    target, text = kinds == TARGET, kinds == TEXT
    sizes = np.where(text, lengths, np.where(target, len(mask), audio_tokens))
    row = np.repeat(np.arange(kinds.size), sizes)
    out = np.empty((row.size, 3), np.int32)
    out[:, 0] = AUDIOSPAN
    out[text[row], 0] = tokens[np.repeat(text, lengths)]
    out[target[row], 0] = np.tile(np.array(mask, np.int32), int(target.sum()))
    out[:, 1] = row
    out[:, 2] = np.where(target, base + np.cumsum(target) - 1, -1)[row]
    return out


def text_to_audio(
    rows: Rows, targets: np.ndarray, base: int, order_draws: np.ndarray
) -> tuple[Sequence, np.ndarray, list[np.ndarray]]:
    """Words around masked spans whose sound is asked for (docs/spec/shards.md 10).

    `order_draws float [2]` in [0, 1) choose which pass comes first. Returns the sequence, the lengths of the rows after
    all moves, and the words of each target.
    """
    target = np.zeros(rows.lengths.size, bool)
    target[targets] = True
    lengths = rows.lengths
    for right_to_left in _passes(order_draws[0]):
        lengths = reassign_empty(lengths, target, rows.joined, right_to_left)
    for right_to_left in _passes(order_draws[1]):
        moved = Rows(rows.tokens, rows.centres, lengths, rows.starts, rows.ends, rows.joined)
        lengths = widen_targets(moved, target, right_to_left)
    kinds = np.where(target, TARGET, TEXT)
    sequence = masked_sequence(rows.tokens, lengths, kinds, base, (MASK, MASKAUDIO), 0)
    return sequence, lengths, row_tokens(rows.tokens, lengths, targets)


def audio_to_text(
    rows: Rows, targets: np.ndarray, base: int, neighbours: np.ndarray, audio_tokens: int
) -> tuple[Sequence, list[np.ndarray]]:
    """Sounds around masked spans whose words are predicted; `neighbours bool [rows]` are shown as text.

    See docs/spec/shards.md 11.

    Returns the sequence and the words of each target.
    """
    kinds = np.where(neighbours, TEXT, AUDIO)
    kinds[targets] = TARGET
    sequence = masked_sequence(rows.tokens, rows.lengths, kinds, base, (MASK,), audio_tokens)
    return sequence, row_tokens(rows.tokens, rows.lengths, targets)


def _passes(draw: float) -> tuple[bool, bool]:
    return (True, False) if draw < 0.5 else (False, True)


def row_tokens(tokens: np.ndarray, lengths: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """The tokens of the chosen rows."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return [tokens[offsets[row] : offsets[row + 1]] for row in chosen]


def split_groups(sequence: Sequence, rows: int, groups: int) -> list[Sequence]:
    """The parts of a sequence that belong to each group of consecutive rows."""
    borders = np.searchsorted(sequence[:, 1], np.arange(1, groups) * (rows // groups))
    return np.split(sequence, borders)


def pad(sequence: Sequence, length: int) -> Sequence:
    """The sequence cut or padded to `length` entries; padding points nowhere."""
    out = np.empty((length, 3), np.int32)
    used = min(len(sequence), length)
    out[:used] = sequence[:used]
    out[used:] = (PADDING, -1, -1)
    return out


def fair_share(sizes: np.ndarray, budget: int) -> np.ndarray:
    """Sizes cut to a common limit so that their sum stays within the budget; what is over goes to the first ones."""
    if sizes.sum() <= budget:
        return sizes
    sums = np.minimum.outer(np.arange(1, sizes.max() + 1), sizes).sum(axis=1)
    limit = int(np.searchsorted(sums, budget, side="right"))
    shares = np.minimum(sizes, limit)
    bigger = np.flatnonzero(sizes > limit)
    shares[bigger[: max(budget - int(shares.sum()), 0)]] += 1
    return shares


def matching_body(
    segments: list[np.ndarray], spans_per_segment: int, audio_tokens: int, with_audio: bool, budget: int | None
) -> Sequence:
    """For each segment a pooling token, then its sound or its words (docs/spec/shards.md 11.1 step 2).

    With a `budget` the words of the longest segments are cut so that every pooling token has room; without one the
    body may be longer than any sequence.
    """
    count = len(segments)
    if with_audio:
        row = np.repeat(np.arange(count * spans_per_segment), audio_tokens).reshape(count, -1)
        pieces = [np.full(row.shape[1], AUDIOSPAN)] * count
        pointers = list(row)
    else:
        sizes = np.array([words.size for words in segments])
        shares = sizes if budget is None else fair_share(sizes, max(budget - count, 0))
        pieces = [words[:share] for words, share in zip(segments, shares, strict=True)]
        pointers = [np.full(share, j * spans_per_segment) for j, share in enumerate(shares)]
    blocks = []
    for j, (ids, pointer) in enumerate(zip(pieces, pointers, strict=True)):
        block = np.empty((ids.size + 1, 3), np.int32)
        block[0] = (LTOVPOOL, j * spans_per_segment, -1)
        block[1:, 0], block[1:, 1], block[1:, 2] = ids, pointer, -1
        blocks.append(block)
    return np.concatenate(blocks)


def header(ids: np.ndarray, room: int) -> Sequence:
    """The front of a header that fits into `room`, pointing nowhere."""
    out = np.full((min(ids.size, max(room, 0)), 3), -1, np.int32)
    out[:, 0] = ids[: len(out)]
    return out
