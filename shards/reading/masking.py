"""Masking: rows of tokens per audio span, the target rows, and the masked sequences.

A row is the text spoken during one audio span. Rows are stored as lengths over one flat list of tokens, so that moving
a border moves words without losing or reordering any (docs/spec/shards.md 8 to 11).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64

from shards.tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PADDING

WIDENING_SECONDS = 0.125
"""Maximum distance of a word from a target's audio to be masked with it (docs/spec/shards.md 10.2)."""

Sequence = Int32[np.ndarray, "_ 3"]
"""Entries of (token id, audio pointer, text pointer)."""

TEXT, TARGET, AUDIO = 0, 1, 2
"""How a row is represented in a sequence: by its tokens, a mask, or audio tokens."""


@dataclass(frozen=True)
class Rows:
    """The words of an example by audio span. Times are seconds from the start of the example."""

    tokens: Int32[np.ndarray, "tokens"]
    """All tokens in spoken order."""
    centres: Float32[np.ndarray, "tokens"]
    """The middle of each token's word in time."""
    lengths: Int64[np.ndarray, "rows"]
    """The number of tokens of each row."""
    starts: Float32[np.ndarray, "rows"]
    """The start of each audio span."""
    ends: Float32[np.ndarray, "rows"]
    """The end of each audio span."""
    joined: Bool[np.ndarray, "rows"]
    """Whether words may move between a row and the one before it."""

    def offsets(self) -> Int64[np.ndarray, "boundaries"]:
        """Return the start of each row in the flat list of tokens, and the end of the last one."""
        return np.concatenate([[0], np.cumsum(self.lengths)])


def assign(
    centres: Float[np.ndarray, "tokens"], span_centres: Float[np.ndarray, "spans"]
) -> Int64[np.ndarray, "tokens"]:
    """Return the span of each token of one segment: the nearest one, but never before that of an earlier token."""
    if not centres.size:
        return np.zeros(0, np.int64)
    return np.maximum.accumulate(np.abs(centres[:, None] - span_centres).argmin(axis=1))


def choose_targets(
    rng: np.random.Generator, rows: int, sequences: int, per_sequence: int
) -> list[Int64[np.ndarray, "targets"]]:
    """Return disjoint sorted sets of target rows, one per sequence."""
    shuffled = np.argsort(rng.random(rows))
    return [np.sort(shuffled[i * per_sequence : (i + 1) * per_sequence]) for i in range(sequences)]


def reassign_empty(
    lengths: Int64[np.ndarray, "rows"],
    target: Bool[np.ndarray, "rows"],
    joined: Bool[np.ndarray, "rows"],
    right_to_left: bool,
) -> Int64[np.ndarray, "rows"]:
    """Return the lengths after moving a word from a neighbour to each empty target.

    This is one pass of docs/spec/shards.md 10.1.
    """
    empty_target = target & (lengths == 0)
    able = ~target & (lengths >= 2)
    gives = np.zeros_like(target)
    if right_to_left:
        gives[1:] = able[1:] & empty_target[:-1] & joined[1:]
    else:
        gives[:-1] = able[:-1] & empty_target[1:] & joined[1:]
    return _moved(lengths, gives, right_to_left)


def widen_targets(rows: Rows, target: Bool[np.ndarray, "rows"], right_to_left: bool) -> Int64[np.ndarray, "rows"]:
    """Return the lengths after moving a word from a neighbour to each target whose audio it overlaps.

    This is one pass of docs/spec/shards.md 10.2.
    """
    able = ~target & (rows.lengths >= 2)
    first, last = _extremes(rows)
    gives = np.zeros_like(target)
    if right_to_left:
        gives[1:] = able[1:] & target[:-1] & rows.joined[1:] & (first[1:] < rows.ends[:-1] + WIDENING_SECONDS)
    else:
        gives[:-1] = able[:-1] & target[1:] & rows.joined[1:] & (last[:-1] > rows.starts[1:] - WIDENING_SECONDS)
    return _moved(rows.lengths, gives, right_to_left)


def _moved(
    lengths: Int64[np.ndarray, "rows"], gives: Bool[np.ndarray, "rows"], right_to_left: bool
) -> Int64[np.ndarray, "rows"]:
    return lengths - gives + np.roll(gives, -1 if right_to_left else 1)


def _extremes(rows: Rows) -> tuple[Float32[np.ndarray, "rows"], Float32[np.ndarray, "rows"]]:
    """Return the times of the earliest and the latest word of each row; infinite for empty rows."""
    first = np.full(rows.lengths.size, np.inf, np.float32)
    last = np.full(rows.lengths.size, -np.inf, np.float32)
    filled = rows.lengths > 0
    if filled.any():
        starts = rows.offsets()[:-1][filled]
        first[filled] = np.minimum.reduceat(rows.centres, starts)
        last[filled] = np.maximum.reduceat(rows.centres, starts)
    return first, last


def textual_neighbours(
    target: Bool[np.ndarray, "rows"],
    same_video: Bool[np.ndarray, "rows"],
    draws: Float[np.ndarray, "rows"],
    probability: float,
) -> Bool[np.ndarray, "rows"]:
    """Return which rows next to a target are shown as text: those with `draws`, in [0, 1), below `probability`.

    `same_video` is whether a row belongs to the same video as the one before it. See docs/spec/shards.md 11.
    """
    beside = np.zeros_like(target)
    beside[:-1] |= target[1:] & same_video[1:]
    beside[1:] |= target[:-1] & same_video[1:]
    return beside & ~target & (draws < probability)


def masked_sequence(
    tokens: Int32[np.ndarray, "tokens"],
    lengths: Int64[np.ndarray, "rows"],
    kinds: Int64[np.ndarray, "rows"],
    base: int,
    mask: tuple[int, ...],
    audio_tokens: int,
) -> Sequence:
    """Return the sequence of all rows in order, each represented by its kind.

    A target becomes the tokens of `mask`; targets point to the text spans `base`, `base + 1`, ... An audio row becomes
    `audio_tokens` AUDIOSPAN tokens.
    """
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
    rows: Rows, targets: Int64[np.ndarray, "targets"], base: int, order_draws: Float[np.ndarray, "2"]
) -> tuple[Sequence, Int64[np.ndarray, "rows"], list[Int32[np.ndarray, "_"]]]:
    """Return the sequence of words with masked spans whose audio is predicted (docs/spec/shards.md 10).

    `order_draws` in [0, 1) select which pass comes first. Also returns the lengths of the rows after all moves, and the
    tokens of each target.
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
    rows: Rows,
    targets: Int64[np.ndarray, "targets"],
    base: int,
    neighbours: Bool[np.ndarray, "rows"],
    audio_tokens: int,
) -> tuple[Sequence, list[Int32[np.ndarray, "_"]]]:
    """Return the sequence of audio with masked spans whose words are predicted (docs/spec/shards.md 11).

    `neighbours` are shown as text. Also returns the tokens of each target.
    """
    kinds = np.where(neighbours, TEXT, AUDIO)
    kinds[targets] = TARGET
    sequence = masked_sequence(rows.tokens, rows.lengths, kinds, base, (MASK,), audio_tokens)
    return sequence, row_tokens(rows.tokens, rows.lengths, targets)


def _passes(draw: float) -> tuple[bool, bool]:
    return (True, False) if draw < 0.5 else (False, True)


def row_tokens(
    tokens: Int[np.ndarray, "tokens"], lengths: Int64[np.ndarray, "rows"], chosen: Int64[np.ndarray, "chosen"]
) -> list[Int[np.ndarray, "words"]]:
    """Return the tokens of each chosen row."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return [tokens[offsets[row] : offsets[row + 1]] for row in chosen]


def split_groups(sequence: Sequence, rows: int, groups: int) -> list[Sequence]:
    """Split a sequence into the parts of `groups` groups of consecutive rows."""
    borders = np.searchsorted(sequence[:, 1], np.arange(1, groups) * (rows // groups))
    return np.split(sequence, borders)


def pad(sequence: Sequence, length: int) -> Sequence:
    """Return the sequence cut or padded to `length` entries; padding has the pointers -1."""
    out = np.empty((length, 3), np.int32)
    used = min(len(sequence), length)
    out[:used] = sequence[:used]
    out[used:] = (PADDING, -1, -1)
    return out


def fair_share(sizes: Int[np.ndarray, "n"], budget: int) -> Int[np.ndarray, "n"]:
    """Return the sizes cut to a common limit so that their sum is at most `budget`.

    The remainder of the budget goes to the first sizes above the limit.
    """
    if sizes.sum() <= budget:
        return sizes
    sums = np.minimum.outer(np.arange(1, sizes.max() + 1), sizes).sum(axis=1)
    limit = int(np.searchsorted(sums, budget, side="right"))
    shares = np.minimum(sizes, limit)
    bigger = np.flatnonzero(sizes > limit)
    shares[bigger[: max(budget - int(shares.sum()), 0)]] += 1
    return shares


def matching_body(
    segments: list[Int[np.ndarray, "words"]],
    spans_per_segment: int,
    audio_tokens: int,
    with_audio: bool,
    budget: int | None,
) -> Sequence:
    """Return a pooling token and the audio tokens or the words of each segment (docs/spec/shards.md 11.1 step 2).

    With a `budget`, the words of the longest segments are cut so that every pooling token fits; without one, the body
    may be longer than the sequence.
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


def header(ids: Int[np.ndarray, "tokens"], length: int) -> Sequence:
    """Return the first `length` tokens of a header, with the pointers -1."""
    out = np.full((min(ids.size, max(length, 0)), 3), -1, np.int32)
    out[:, 0] = ids[: len(out)]
    return out
