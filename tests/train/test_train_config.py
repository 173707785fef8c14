"""Presets against the published settings, and what a stored configuration may lack or add."""

import dataclasses
import json
import math
from functools import partial

import pytest

from model.config import ConfigError
from shards.storage.errors import UsageError
from train.config import InputConfig, OptimizerConfig, TrainConfig, fit_to_data, from_json
from train.configs import PRESETS
from train.finetune_config import FinetuneConfig
from train.optimizer import pretraining_schedule
from train.tasks.readers import READERS

TINY, BASE_RESADAPT, LARGE_RESADAPT = (PRESETS[name] for name in ("tiny", "base_resadapt", "large_resadapt"))


def test_adaptation_follows_the_published_stage():
    """docs/spec/training.md 5 and 15."""
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


@pytest.mark.parametrize(
    ("part", "name", "values"),
    [
        (OptimizerConfig, "learning_rate", (math.inf, math.nan, 0.0, -1.0, 1e9)),
        (OptimizerConfig, "weight_decay", (math.inf, math.nan, -0.1)),
        (OptimizerConfig, "eps", (math.nan, 0.0, -1e-6, 2.0)),
        (OptimizerConfig, "beta_2", (math.nan, 1.0, -0.1)),
        (OptimizerConfig, "final_scale", (math.nan, 1.5)),
        (InputConfig, "matching_audio_rate", (math.nan, 1.5)),
        (InputConfig, "scale_max", (math.inf, math.nan, 0.5)),
        (InputConfig, "window", (0,)),
        (InputConfig, "bad_records", (-1,)),
        (partial(TrainConfig, TINY.model), "keep_every", (0, -3)),
        (partial(TrainConfig, TINY.model), "seed", (-1, 2**32)),
        (partial(dataclasses.replace, TINY.model), "mask_rate", (math.nan, 0.0, 1.5)),
        (partial(dataclasses.replace, TINY.model), "initial_log_scale", (math.inf, math.nan)),
        (partial(dataclasses.replace, TINY.model), "context_split_probability", (math.nan, -0.1, 1.1)),
        (partial(dataclasses.replace, TINY.model), "joint_layers", (0, -2)),
        (partial(FinetuneConfig, READERS["vcr"]), "learning_rate", (math.inf, math.nan, 0.0)),
        (partial(FinetuneConfig, READERS["vcr"]), "weight_decay", (math.inf, -1.0)),
        (partial(FinetuneConfig, READERS["vcr"]), "warmup_epochs", (math.nan, math.inf, -1.0)),
        (partial(FinetuneConfig, READERS["vcr"]), "window", (0,)),
    ],
)
def test_numbers_out_of_range_are_refused(part, name, values):
    for value in values:
        with pytest.raises((UsageError, ConfigError), match=name):
            part(**{name: value})


def test_a_model_fits_shorter_and_longer_examples():
    for segments, groups, text, joint in ((4, 1, 80, 96), (8, 1, 160, 192), (16, 2, 160, 384)):
        model = fit_to_data(TINY, 512, segments).model
        assert (model.groups, model.text_length, model.sequence_length) == (groups, text, joint)
        assert fit_to_data(TINY, 512, segments).reader().rows == 3 * segments
    with pytest.raises(UsageError, match="cannot be cut in 2 equal groups"):
        fit_to_data(TINY, 512, 11)
