"""VCR: from a picture and a question to an answer and its rationale.

The picture is encoded once for its eight rows of text. Rationales are judged given the right answer; the joint metric
`q2ar` asks for both (docs/spec/training.md 9).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from model.checkpoints import DROPPED_BY_TASK
from model.reserve import MerlotReserve, apply_method
from shards.records.vcr import CHOICES, PREFIXES, VcrParser
from train.metrics.tie_credit import credited
from train.tasks import Batch, Task, vcr_submission
from train.tasks.readers import READERS
from train.tasks.scoring import cross_entropy, scores_at_mask


def logits(module: MerlotReserve, params: dict, batch: Batch) -> jax.Array:
    """Return scores float32 `[batch, 2, 4]` of the answers and of the rationales."""
    arrays = (batch["image"], batch["answers"], params["proj"]["kernel"])
    return apply_method(module, params, _scores, *arrays)


def _scores(model: MerlotReserve, image: jax.Array, answers: jax.Array, kernel: jax.Array) -> jax.Array:
    tokens = answers.reshape(-1, answers.shape[-1])
    vision = jnp.repeat(model.get_imgseq_only(image), len(PREFIXES) * CHOICES, axis=0)
    inputs = model.assemble(tokens, token_segment_idx=jnp.zeros_like(tokens), vision_input=vision)
    return scores_at_mask(model, inputs, tokens, kernel).reshape(answers.shape[:3])


def losses(scores: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Return the cross-entropy of both choices, half each."""
    each = cross_entropy(scores, batch["labels"]) / 2
    return {"loss_qa": each[:, 0], "loss_qar": each[:, 1]}


def right(scores: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Credit for the answer, for the rationale, and for both."""
    hits = credited(scores, batch["labels"])
    return {"qa": hits[:, 0], "qar": hits[:, 1], "q2ar": hits.prod(axis=1)}


def labels(batch: Batch) -> dict[str, jax.Array]:
    """Return the right answer, the right rationale, and both."""
    both = batch["labels"]
    return {"qa": both[:, :1], "qar": both[:, 1:], "q2ar": both}


TASK = Task(
    name="vcr",
    reader=READERS["vcr"],
    parser=VcrParser,
    dropped=DROPPED_BY_TASK["vcr"],
    logits=logits,
    losses=losses,
    right=right,
    labels=labels,
    best="q2ar",
    submit=vcr_submission.write,
    submitted_splits=("test",),
)
