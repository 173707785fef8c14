"""Presets against the published settings, and what a stored configuration may lack or add."""

import dataclasses
import json

import pytest

from shards.errors import UsageError
from train.config import BASE_RESADAPT, LARGE_RESADAPT, PRESETS, TINY, fit_to_data, from_json
from train.optimizer import pretraining_schedule


def test_adaptation_follows_the_published_stage():
    """Spec training.md 5 and 15.2."""
    schedule = pretraining_schedule(BASE_RESADAPT.optimizer)
    assert [float(schedule(step)) for step in (7_500, 15_000, 45_000)] == pytest.approx([0.5, 1, 0.500013], abs=1e-6)
    assert BASE_RESADAPT.optimizer.learning_rate == pytest.approx(8e-6)
    assert LARGE_RESADAPT.optimizer.learning_rate == pytest.approx(6e-6)
    reader = BASE_RESADAPT.reader()
    assert (reader.sequence_length, reader.limit, reader.grid) == (1_312, 1_024, (18, 32))
    assert (reader.scaling.low, reader.scaling.high) == pytest.approx((1.0, 1.1))
    wide, square = (turn.reader() for turn in BASE_RESADAPT.turns())
    assert wide == reader
    assert (square.grid, square.sequence_length) == ((24, 24), 1_312)
    assert square.scaling.high == pytest.approx(1.877778, abs=1e-6)
    assert not reader.turn_portraits


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_being_stored(name):
    config = PRESETS[name]
    stored = json.loads(json.dumps(dataclasses.asdict(config))) | {"data": "somewhere", "tokenizer": "0" * 64}
    assert from_json(stored) == config
    # What an older run did not know has its default.
    del stored["input"]["text_limit"]
    assert from_json(stored).input.text_limit is None


def test_a_model_fits_shorter_and_longer_examples():
    for segments, groups, text, joint in ((4, 1, 80, 96), (8, 1, 160, 192), (16, 2, 160, 384)):
        model = fit_to_data(TINY, 512, segments).model
        assert (model.groups, model.text_length, model.sequence_length) == (groups, text, joint)
        assert fit_to_data(TINY, 512, segments).reader().rows == 3 * segments
    with pytest.raises(UsageError, match="cannot be cut in 2 equal groups"):
        fit_to_data(TINY, 512, 11)
