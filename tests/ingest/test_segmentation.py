import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.captions import Word
from ingest.segmentation import segment
from ingest.timing import TimingModel
from shards.tokenizer import encode_words, load_tokenizer


def half():
    return 0.5


def rows(windows):
    return [(w.start, w.end, w.speed, len(w.words)) for w in windows]


def golden_words(golden, runs):
    """Raw words and their piece counts, by table."""
    arrays = np.load(golden / "d_offsets.npz")
    tables = json.loads((golden / "d_offsets_words.json").read_text())["tables"]
    for name, table in tables.items():
        starts, ends = arrays[f"{name}/start"].tolist(), arrays[f"{name}/end"].tolist()
        words = [Word(*row) for row in zip(table["word"], starts, ends, strict=True)]
        yield name, words, [len(ids) for ids in table["encoded"]]
    sparse = next(run["words"] for run in runs if "words" in run)
    yield "sparse_crafted", [Word(w["word"], w["start"], w["end"]) for w in sparse], None


def test_golden_windows(golden, published_timing_model, published_tokenizer):
    model, tokenizer = TimingModel.load(published_timing_model), load_tokenizer(published_tokenizer)
    runs = json.loads((golden / "e_chunks.json").read_text())["runs"]
    corrected = {
        name: model.correct(words, pieces or [len(ids) for ids in encode_words(tokenizer, [w.text for w in words])])
        for name, words, pieces in golden_words(golden, runs)
    }
    for run in runs:
        mode = run["mode"]
        uniform = half if "0.5" in mode else random.Random(int(mode.split("(")[1].rstrip(")"))).random
        windows = segment(corrected[run["table"]], run["duration"], uniform)
        ours = [(w.start, w.end, w.speed, w.words) for w in windows]
        # Where no window fits the published code raises; ours gives none.
        expected = [(c["start_time"], c["end_time"], c["playback_speed"], c["rows"]) for c in run.get("chunks", [])]
        assert ours == expected, (run["table"], run["duration"], mode)


def evenly(count, first, step):
    return [Word("w", first + step * i, first + step * i + step) for i in range(count)]


def test_sparse_words():
    words = [Word("w", 3 + i, 4 + i) for i in range(20)]
    assert rows(segment(words, 40, half)) == [(1.75, 11.75, 2, 9), (11.75, 21.75, 2, 10), (21.75, 36.75, 3, 1)]


def test_mixed_words():
    words = [
        Word("w", s, s + 0.25) for s in [0.2 + 0.3 * i for i in range(10)] + [7 + 0.25 * i for i in range(40)] + [30.0]
    ]
    start = [(0, 5, 1, 10), (5, 10, 1, 12), (10, 15, 1, 20), (15, 20, 1, 8)]
    assert rows(segment(words, 45, half)) == [*start, (20, 35, 3, 1)]
    assert rows(segment(words, 38, half)) == [*start, (20, 35, 3, 1)]
    alternating = itertools.cycle([0.5, 0.95])
    assert rows(segment(words, 45, lambda: next(alternating)))[-2:] == [(20, 25, 1, 0), (25, 35, 2, 1)]


def test_nothing_to_cut():
    assert segment([], 100, half) == []
    assert segment(evenly(3, 0, 1), 4, half) == []


@given(
    st.lists(st.tuples(st.floats(-1, 300), st.floats(0, 3)), max_size=120),
    st.floats(0, 320),
    st.integers(0, 2**32),
)
def test_windows_are_contiguous_and_inside(spans, duration, seed):
    words = [Word("w", start, start + length) for start, length in spans]
    windows = segment(words, duration, random.Random(seed).random)
    assert all(w.end <= duration - 1 + 0.006 for w in windows)
    assert all(a.end == b.start for a, b in itertools.pairwise(windows))
    assert all(w.end - w.start == pytest.approx(5 * w.speed, abs=0.011) for w in windows)
    used = [i for w in windows for i in w.words]
    assert used == sorted(set(used))
    for w in windows:
        assert all((words[i].start + words[i].end) / 2 < w.end + 0.006 for i in w.words)
