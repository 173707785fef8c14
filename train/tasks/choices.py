"""Questions with k options about a clip or a picture, with or without sound.

Every option is scored once beside the subtitles and, where there is sound, once beside the sound; each segment is
encoded once for all rows (docs/spec/training.md 10).
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp

from model.checkpoints import DROPPED_BY_TASK
from model.reserve import PADDING_SEGMENT, JointInputs, MerlotReserve, apply_method
from shards.records.choices import ClipParser, fit
from shards.tokens import AUDIOSPAN
from train.metrics.tie_credit import credited
from train.tasks import Batch, Task
from train.tasks.readers import READERS
from train.tasks.scoring import cross_entropy, scores_at_mask

Scores = dict[str, jax.Array]
"""float32 `[batch, options]` by what was beside the question: `audio`, if there is sound, and `text`."""


def logits(module: MerlotReserve, params: dict, batch: Batch) -> Scores:
    """Return scores of the options."""
    arrays = {name: array for name, array in batch.items() if name in _READ}
    return apply_method(module, params, _scores, arrays, params["proj"]["kernel"])


_READ = ("images", "audio_clips", "textonly_seqs", "audio_seqs", "is_segment")


def _scores(model: MerlotReserve, batch: Batch, kernel: jax.Array) -> Scores:
    questions, options = batch["textonly_seqs"].shape[:2]
    vision = model.get_imgseq_only(batch["images"])
    per_image, hidden = vision.shape[2:]
    # An empty image in segment 0, the question's, gives image i the segment i + 1 of its words.
    vision = jnp.pad(vision, ((0, 0), (1, 0), (0, 0), (0, 0))).reshape(questions, -1, hidden)
    shown = None
    if "is_segment" in batch:
        shown = jnp.repeat(jnp.repeat(batch["is_segment"], per_image, axis=1), options, axis=0)
    vision = jnp.repeat(vision, options, axis=0)
    rows = {}
    if "audio_seqs" in batch:
        sounds = model.get_audioseq_only(batch["audio_clips"])
        sounds = jnp.repeat(sounds.reshape(questions, -1, *sounds.shape[1:]), options, axis=0)
        rows["audio"] = _rows(model, batch["audio_seqs"], vision, sounds, shown)
    rows["text"] = _rows(model, batch["textonly_seqs"], vision, None, shown)

    def joined(*parts: jax.Array) -> jax.Array:
        """Return the rows of a question side by side, because joining whole batches would move rows between devices."""
        grouped = [part.reshape(questions, options, *part.shape[1:]) for part in parts]
        return jnp.concatenate(grouped, axis=1).reshape(-1, *parts[0].shape[1:])

    tokens, inputs = jax.tree.map(joined, *rows.values())
    rows_of_scores = scores_at_mask(model, inputs, tokens, kernel).reshape(questions, len(rows), options)
    return {name: rows_of_scores[:, index] for index, name in enumerate(rows)}


def _rows(
    model: MerlotReserve, sequences: jax.Array, vision: jax.Array, sounds: jax.Array | None, shown: jax.Array | None
) -> tuple[jax.Array, JointInputs]:
    """Tokens `[rows, n]` and what the joint transformer reads of them, without the empty image."""
    tokens, segments = sequences.reshape(-1, *sequences.shape[2:]).transpose(2, 0, 1)
    pointers = None
    if sounds is not None:
        count = jnp.cumsum(tokens == AUDIOSPAN, axis=1) - 1
        pointers = count // model.config.audio_tokens % sounds.shape[1]
    joint = model.assemble(
        tokens, token_segment_idx=segments, vision_input=vision, audio_spans=sounds, audio_pointers=pointers
    )
    length, per_image = tokens.shape[1], model.config.tokens_per_image
    joint = jax.tree.map(lambda part: jnp.delete(part, slice(length, length + per_image), axis=1), joint)
    if shown is not None:
        ids = joint.segment_ids
        hidden = jnp.where(shown, ids[:, length:], PADDING_SEGMENT)
        joint = joint.replace(segment_ids=ids.at[:, length:].set(hidden))
    return tokens, joint


def losses(scores: Scores, batch: Batch) -> dict[str, jax.Array]:
    """Return the cross-entropy beside the sound and beside the subtitles; their sum is trained on."""
    return {f"loss_{name}": cross_entropy(one, batch["labels"]) for name, one in scores.items()}


def right(scores: Scores, batch: Batch) -> dict[str, jax.Array]:
    """Credit for the choice beside subtitles, beside the sound, and for that of both together."""
    hits = {name: credited(one, batch["labels"]) for name, one in scores.items()}
    return hits | {"joint": credited(joint_probabilities(scores), batch["labels"])}


def labels(batch: Batch) -> dict[str, jax.Array]:
    """Return the right option behind each metric."""
    names = ("audio", "text", "joint") if "audio_seqs" in batch else ("text", "joint")
    return dict.fromkeys(names, batch["labels"][:, None])


def joint_probabilities(scores: Scores) -> jax.Array:
    """Return the sum of the soft-max outputs beside sound and subtitles `[batch, options]`."""
    return reduce(jnp.add, (jax.nn.softmax(jnp.asarray(one)) for one in scores.values()))


TASK = Task(
    name="choices",
    reader=READERS["choices"],
    parser=ClipParser,
    dropped=DROPPED_BY_TASK["tvqa"],
    logits=logits,
    losses=losses,
    right=right,
    labels=labels,
    best="joint",
    fit=fit,
)
