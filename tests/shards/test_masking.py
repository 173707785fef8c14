import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.reading import masking
from shards.reading.config import TextShape, default_budget
from shards.reading.masking import AUDIO, TARGET, TEXT, Rows
from shards.reading.random_text import mask_text
from shards.reading.truncation import truncate
from shards.tokens import AUDIOSPAN, MASK, MASKAUDIO

TARGETS = np.array([False, True, False, False, True, False])
ALL = np.ones(6, bool)


def passes(*directions):
    return [d == "RTL" for d in directions]


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        (["RTL"], [2, 1, 2, 1, 1, 4]),
        (["RTL", "LTR"], [2, 1, 2, 1, 1, 4]),
        (["LTR"], [1, 1, 3, 1, 0, 5]),
        (["LTR", "RTL"], [1, 1, 3, 1, 1, 4]),
    ],
)
def test_reassigning_equals_the_reference_vectors(directions, expected):
    lengths = np.array([2, 0, 3, 1, 0, 5])
    for right_to_left in passes(*directions):
        lengths = masking.reassign_empty(lengths, TARGETS, ALL, right_to_left)
    assert lengths.tolist() == expected


def widening_rows():
    return Rows(
        np.arange(100, 111, dtype=np.int32),
        np.array([0.2, 1.5, 2.0, 3.3, 3.6, 4.9, 5.1, 6.4, 7.0, 8.28, 9.0], np.float32),
        np.array([2, 1, 3, 2, 1, 2]),
        np.array([0, 1.60, 3.17, 4.9, 6.5, 8.2], np.float32),
        np.array([1.63, 3.2, 4.9, 6.5, 8.2, 9.9], np.float32),
        ALL,
    )


@pytest.mark.parametrize(
    ("directions", "expected"),
    [
        (["RTL"], [2, 2, 2, 2, 2, 1]),
        (["RTL", "LTR"], [1, 3, 2, 1, 3, 1]),
        (["LTR"], [1, 2, 3, 1, 2, 2]),
        (["LTR", "RTL"], [1, 3, 2, 1, 3, 1]),
    ],
)
def test_widening_equals_the_reference_vectors(directions, expected):
    rows = widening_rows()
    for right_to_left in passes(*directions):
        rows = replace(rows, lengths=masking.widen_targets(rows, TARGETS, right_to_left))
    assert rows.lengths.tolist() == expected


def test_masking_equals_the_reference_vectors():
    tokens, lengths = np.arange(100, 111, dtype=np.int32), np.array([1, 3, 2, 1, 3, 1])
    kinds = np.where(TARGETS, TARGET, TEXT)
    sequence = masking.masked_sequence(tokens, lengths, kinds, 7, (MASK, MASKAUDIO), 0)
    first, second = (masking.pad(part, 10).tolist() for part in masking.split_groups(sequence, 6, 2))
    pads = [[0, -1, -1]]
    assert first == [[100, 0, -1], [3, 1, 7], [4, 1, 7], [104, 2, -1], [105, 2, -1]] + pads * 5
    assert second == [[106, 3, -1], [3, 4, 8], [4, 4, 8], [110, 5, -1]] + pads * 6
    spans = [words.tolist() for words in masking.row_tokens(tokens, lengths, np.flatnonzero(TARGETS))]
    assert spans == [[101, 102, 103], [107, 108, 109]]
    kinds = np.array([AUDIO, TARGET, TEXT, AUDIO, TARGET, AUDIO])
    sequence = masking.masked_sequence(tokens, lengths, kinds, 7, (MASK,), 6)
    first, second = (masking.pad(part, 20).tolist() for part in masking.split_groups(sequence, 6, 2))
    assert first == [[5, 0, -1]] * 6 + [[3, 1, 7], [104, 2, -1], [105, 2, -1]] + pads * 11
    assert second == [[5, 3, -1]] * 6 + [[3, 4, 8]] + [[5, 5, -1]] * 6 + pads * 7


def test_subfunctions_equal_the_golden_ones(golden):
    held = json.loads((golden / "j_reader_subfunctions.json").read_text())
    rows = held["input_rows"]
    tokens = np.array([t for row in rows for t in row], np.int32)
    lengths = np.array([len(row) for row in rows])
    for key, base, mask, kinds in (
        ("mask_tokens_idx_2_5_groups2_len8_audiomask", 0, (MASK, MASKAUDIO), "TT-TT-"),
        ("mask_tokens_idx_1_3_audiospan_TTFFTF", 12, (MASK,), "A-T-AT"),
    ):
        kind = np.array([{"T": TEXT, "A": AUDIO, "-": TARGET}[k] for k in kinds])
        sequence = masking.masked_sequence(tokens, lengths, kind, base, mask, 6)
        golden_groups = held[key]["groups"]
        length = len(golden_groups[0])
        assert [masking.pad(g, length).tolist() for g in masking.split_groups(sequence, 6, 2)] == golden_groups
        chosen = np.flatnonzero(kind == TARGET)
        assert [w.tolist() for w in masking.row_tokens(tokens, lengths, chosen)] == held[key]["spans"]
    moved = lengths - np.eye(6, dtype=int)[[2, 5]].sum(0) + np.eye(6, dtype=int)[[1, 4]].sum(0)
    assert moved.tolist() == [len(row) for row in held["shift_right_to_left=True_at_[2, 5]"]]
    assigned = masking.assign(np.array(held["cumulative_maximum_int"]["input"], np.float32), np.arange(3.0))
    assert assigned.tolist() == held["cumulative_maximum_int"]["output"]
    padded = held["pad_tokens_to_fixed_size"]
    assert masking.pad(np.array(padded[:2], np.int32), len(padded)).tolist() == padded


def text(count, start=100):
    return [[start + i, 0, -1] for i in range(count)]


def test_truncation_equals_the_reference_vectors():
    rng = np.random.default_rng(0)
    pair = [[MASK, 0, 0], [MASKAUDIO, 0, 0]]
    sequence = np.array(text(30) + pair + text(3, 200) + pair + text(30, 300), np.int32)
    for parity in (False, True):
        kept = truncate(sequence, 40, rng, 48, parity)[:, 0].tolist()
        assert kept == [*range(113, 130), 3, 4, 200, 201, 202, 3, 4, *range(300, 316)]
        kept = truncate(np.array(text(60), np.int32), 40, rng, 48, parity)
        assert kept[:, 0].tolist() == list(range(110, 150))
        runs = np.array([[AUDIOSPAN, row, -1] for row in range(10) for _ in range(6)], np.int32)
        assert truncate(runs, 40, rng, 48, parity).tolist() == runs[:40].tolist()


@st.composite
def sequences(draw):
    parts = []
    for row in range(24):
        kind = draw(st.sampled_from("tam"))
        if kind == "t":
            parts += [[draw(st.integers(10, 500)), row, -1] for _ in range(draw(st.integers(0, 15)))]
        elif kind == "a":
            parts += [[AUDIOSPAN, row, -1]] * 6
        else:
            parts += [[MASK, row, row], [MASKAUDIO, row, row]]
    return np.array(parts, np.int32).reshape(-1, 3)


@given(sequence=sequences(), length=st.integers(60, 120), seed=st.integers(0, 99))
def test_truncation_keeps_masks_whole_sounds_and_order(sequence, length, seed):
    kept = truncate(sequence, length, np.random.default_rng(seed), 24, False)
    assert len(kept) == min(len(sequence), length) or (len(sequence) > length >= len(kept) > length - 6)
    for token in (MASK, MASKAUDIO):
        assert (kept[:, 0] == token).sum() == (sequence[:, 0] == token).sum()
    rows, counts = np.unique(kept[kept[:, 0] == AUDIOSPAN, 1], return_counts=True)
    cut = rows[counts != 6]
    assert cut.size <= 1
    assert not cut.size or (cut[0] == kept[-1, 1] and kept[-1, 0] == AUDIOSPAN)
    assert (np.diff(kept[:, 1]) >= 0).all()


@st.composite
def example_rows(draw):
    lengths = np.array(draw(st.lists(st.integers(0, 12), min_size=12, max_size=12)))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    count = int(lengths.sum())
    starts = np.arange(12, dtype=np.float32) * 1.67
    joined = rng.random(12) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    centres = np.sort(rng.random(count).astype(np.float32) * 20)
    return Rows(np.arange(10, 10 + count, dtype=np.int32), centres, lengths, starts, starts + 1.67, joined)


@settings(deadline=None)
@given(rows=example_rows(), seed=st.integers(0, 999), draws=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)))
def test_moves_lose_nothing_and_never_empty_a_row(rows, seed, draws):
    targets = masking.choose_targets(np.random.default_rng(seed), 12, 2, 3)
    assert len({*targets[0], *targets[1]}) == 6
    _, lengths, words = masking.text_to_audio(rows, targets[0], 0, np.array(draws))
    assert lengths.sum() == rows.lengths.sum()
    other = np.setdiff1d(np.arange(12), targets[0])
    assert (lengths[other][rows.lengths[other] > 0] > 0).all()
    assert (np.abs(lengths - rows.lengths) <= 4).all()
    # Borders that must not be crossed keep their place in the text.
    fixed = ~rows.joined[1:]
    assert (np.cumsum(lengths)[:-1][fixed] == np.cumsum(rows.lengths)[:-1][fixed]).all()
    assert [w.size for w in words] == lengths[targets[0]].tolist()


def test_words_go_to_the_nearest_span_in_order():
    centres = np.array([0.8, 2.5, 4.2], np.float32)
    assert masking.assign(np.array([0.1, 1.65, 4.0, 1.0, 4.9], np.float32), centres).tolist() == [0, 0, 2, 2, 2]
    assert masking.assign(np.zeros(0, np.float32), centres).tolist() == []


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(0, 200))
def test_shares_use_the_budget_and_cut_the_longest(sizes, budget):
    sizes = np.array(sizes)
    shares = masking.fair_share(sizes, budget)
    assert shares.sum() == min(budget, sizes.sum())
    assert (shares <= sizes).all()
    cut = shares < sizes
    assert not cut.any() or shares[cut].max() >= shares[~cut].max(initial=0) - 1


def test_a_long_text_never_pushes_out_a_pooling_token():
    words = [np.full(n, 77) for n in (500, 3, 400, 0)]
    body = masking.matching_body(words, 3, 6, False, 640)
    assert len(body) == 640
    assert body[body[:, 0] == 6, 1].tolist() == [0, 3, 6, 9]
    published = masking.matching_body(words, 3, 6, False, None)
    assert len(published) == 907


SPOKEN = np.ones(1000, bool)
SPOKEN[500:] = False


@settings(deadline=None)
@given(size=st.integers(1, 1536), seed=st.integers(0, 999), parity=st.booleans(), limit=st.sampled_from([400, 640]))
def test_random_text_masks_spans_that_come_back(size, seed, parity, limit):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(10, 1000, size).astype(np.int32)
    shape = TextShape(640, limit, 38, "v2", parity)
    sequence, spans = mask_text(tokens, SPOKEN, 24, shape, rng)
    assert len(sequence) <= (640 if parity else limit)
    at = sequence[:, 0] == MASK
    assert sequence[at, 2].tolist() == list(range(24, 24 + at.sum()))
    assert parity or len(spans) == at.sum()
    assert all((words < 500).all() for words in spans)
    unmasked = sequence[~at, 0].tolist()
    remaining = iter(tokens.tolist())
    assert all(token in remaining for token in unmasked)


def test_random_text_has_the_published_sizes():
    assert default_budget(640, 0.25) == 36
    rng = np.random.default_rng(0)
    shape = TextShape(640, 640, 38, "v2", False)
    sequences = [mask_text(rng.integers(10, 500, 1536).astype(np.int32), SPOKEN, 0, shape, rng) for _ in range(50)]
    lengths = [words.size for _, spans in sequences for words in spans]
    assert abs(np.mean(lengths) - 6.23) < 0.3
    assert np.mean([len(spans) == 38 for _, spans in sequences]) > 0.8
