"""TVQA: five answers about a clip of a television series with sound and subtitles (docs/spec/training.md 10)."""

from __future__ import annotations

import jax

from model.checkpoints import DROPPED_BY_TASK
from model.reserve import MerlotReserve
from shards.records.tvqa import TvqaParser
from train.tasks import Batch, Task, choices, tvqa_submission
from train.tasks.readers import READERS


def logits(module: MerlotReserve, params: dict, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Return scores float32 `[batch, 5]` beside the sound, and beside the subtitles."""
    scores = choices.logits(module, params, batch)
    return scores["audio"], scores["text"]


TASK = Task(
    name="tvqa",
    reader=READERS["tvqa"],
    parser=TvqaParser,
    dropped=DROPPED_BY_TASK["tvqa"],
    logits=choices.logits,
    losses=choices.losses,
    right=choices.right,
    labels=choices.labels,
    best="joint",
    submit=tvqa_submission.write,
    submitted_splits=("val", "test"),
)
