import json

import numpy as np
import pytest

from ingest.captions import Word
from ingest.timing import TimingModel, TimingModelError, border_shifts, features


@pytest.fixture(scope="module")
def model(published_timing_model):
    return TimingModel.load(published_timing_model)


def tables(golden):
    arrays = np.load(golden / "d_offsets.npz")
    for name, table in json.loads((golden / "d_offsets_words.json").read_text())["tables"].items():
        words = [
            Word(text, start, end)
            for text, start, end in zip(
                table["word"], arrays[f"{name}/start"].tolist(), arrays[f"{name}/end"].tolist(), strict=True
            )
        ]
        yield (
            name,
            words,
            [len(ids) for ids in table["encoded"]],
            {k: arrays[f"{name}/{k}"] for k in ("features", "offsets", "deltas", "adj_start", "adj_end", "adj_center")},
        )


def test_features_and_offsets_equal_the_golden_ones(golden, model, parity):
    for _, words, pieces, expected in tables(golden):
        for quantity, ours in (
            ("features", features(words, pieces)),
            ("offsets", model.offsets(words, pieces)),
            ("deltas", border_shifts(model.offsets(words, pieces))),
        ):
            error = np.abs(ours - expected[quantity]).max()
            parity.record("d_offsets.npz", quantity, error, "s" if quantity != "features" else "")
            assert error < 1e-4


def test_corrected_times(golden, model, parity):
    for _, words, pieces, expected in tables(golden):
        corrected = model.correct(words, pieces)
        starts, ends = np.array([w.start for w in corrected]), np.array([w.end for w in corrected])
        error = max(np.abs(starts - expected["adj_start"]).max(), np.abs(ends - expected["adj_end"]).max())
        error = max(error, np.abs((starts + ends) / 2 - expected["adj_center"]).max())
        parity.record("d_offsets.npz", "corrected times", error, "s")
        assert error < 1e-4


def test_reference_words(model):
    rows = [
        ("Hello", 0.03, 0.45, 1, 0.120283, 0.553722),
        ("everyone", 0.45, 0.84, 1, 0.553722, 0.929153),
        ("don't", 0.84, 1.14, 2, 0.929153, 1.208663),
        ("welcome", 1.14, 2.06, 1, 1.208663, 2.201637),
        ("[Music]", 2.50, 4.00, 3, 2.641637, 4.048437),
    ]
    corrected = model.correct([Word(t, s, e) for t, s, e, *_ in rows], [pieces for *_, pieces, _, _ in rows])
    assert [(w.start, w.end) for w in corrected] == [pytest.approx(row[4:], abs=2e-6) for row in rows]


def test_no_words_and_a_wrong_file(model, tmp_path):
    assert model.correct([], []) == []
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"temp": [1, 2, 3]}')
    with pytest.raises(TimingModelError, match=r"wrong\.json is not a timing model"):
        TimingModel.load(wrong)
