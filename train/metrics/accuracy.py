"""How often the right partner is the most similar one: in the whole batch, and among candidates of the same video.

A partner that is one of k equally similar ones counts 1/k, so that equal scores give exactly what guessing gives, and a
score that is not finite counts 0. Recognising the video alone already gives a high accuracy in the batch; only the
second number tells whether the model hears and reads what happens within it. Chance is reported beside each.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.config import ReserveConfig
from model.objectives import Outputs
from model.row_blocks import ROWS_PER_BLOCK, in_blocks
from shards.tokens import MASK, MASKAUDIO
from train.metrics.example_mask import pair_examples
from train.metrics.tie_credit import credited

OBJECTIVES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")
_NO_VIDEO = -1


class Answers(NamedTuple):
    """The outcome of the queries of one objective, each array `[queries]`.

    `right` is float32, 1/k for a partner among k equally similar ones; `counted` is bool; `odds` is the chance to guess
    right, 0 for queries that do not count; `example` is the row of the batch that the query belongs to.
    """

    right: jax.Array
    counted: jax.Array
    odds: jax.Array
    example: jax.Array


def answers(
    outputs: Outputs,
    batch: Mapping[str, jax.Array],
    config: ReserveConfig,
    rows_per_block: int = ROWS_PER_BLOCK,
) -> dict[str, Answers]:
    """Return whether each query `x` finds its partner, from the pairs of a whole batch, in the order of examples.

    Keys are `accuracy/OBJECTIVE` and `accuracy_within_video/OBJECTIVE`. Invalid pairs are neither queries nor
    candidates; web text has no video and is left out within it. The similarities of `rows_per_block` queries exist at
    once.
    """
    videos = _videos(outputs, batch, config)
    asking = pair_examples(outputs, batch, config)
    results = {}
    for objective in OBJECTIVES:
        arrays = outputs[objective]
        x, keys = arrays["x"], arrays["y"]
        valid = arrays.get("_valid", jnp.ones(len(x), bool))
        key_valid, (x_video, key_video) = valid, videos[objective]
        if "y_extra" in arrays:
            keys = jnp.concatenate([keys, arrays["y_extra"]])
            extra_valid = arrays.get("_extra_valid", jnp.ones(len(arrays["y_extra"]), bool))
            key_valid = jnp.concatenate([valid, extra_valid])
        work = partial(_of_rows, keys=keys, key_video=key_video, key_valid=key_valid)
        credit, candidates = in_blocks(work, (jnp.arange(len(x)), x, x_video), rows_per_block)
        for i, (scope, counted) in enumerate(
            (("accuracy", valid), ("accuracy_within_video", valid & (x_video != _NO_VIDEO)))
        ):
            right = jnp.where(counted, credit[:, i], 0)
            odds = jnp.where(counted, 1 / jnp.maximum(candidates[:, i], 1), 0)
            results[f"{scope}/{objective}"] = Answers(right, counted, odds, asking[objective])
    return results


def _of_rows(
    own: jax.Array,
    rows: jax.Array,
    video: jax.Array,
    keys: jax.Array,
    key_video: jax.Array,
    key_valid: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Credit of each query, float32, and how many candidates there are, `[queries, 2]`: in the batch, in the video.

    The partner of a query is the key of the number `own`.
    """
    logits = jnp.einsum("qh,kh->qk", rows, keys, preferred_element_type=jnp.float32)
    same = (video[:, None] == key_video) & (video != _NO_VIDEO)[:, None]
    scopes = jnp.broadcast_to(key_valid, logits.shape), key_valid & same
    credit = [credited(jnp.where(candidates, logits, -jnp.inf), own) for candidates in scopes]
    return jnp.stack(credit, axis=1), jnp.stack([candidates.sum(axis=1) for candidates in scopes], axis=1)


def accuracies(
    outputs: Outputs,
    batch: Mapping[str, jax.Array],
    config: ReserveConfig,
    rows_per_block: int = ROWS_PER_BLOCK,
) -> dict[str, jax.Array]:
    """Return the shares of right answers under the keys of `answers`, and chance under the same with `chance`."""
    results = {}
    for name, given in answers(outputs, batch, config, rows_per_block).items():
        count = jnp.maximum(given.counted.sum(), 1)
        results[name] = given.right.sum() / count
        results[name.replace("accuracy", "chance")] = given.odds.sum() / count
    return results


def _videos(
    outputs: Outputs, batch: Mapping[str, jax.Array], config: ReserveConfig
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Return the video of every query and of every candidate, a number that no other example has."""
    examples = batch["images"].shape[0]
    distinct = batch["video_src_index"].max() + 1
    videos = batch["video_src_index"] + distinct * jnp.arange(examples)[:, None]
    of_sounds = jnp.repeat(videos, config.subsegments, axis=1)
    targets = config.targets * config.text2audio_sequences
    counted, others = jnp.split(_sounds_in_order(batch, config), [targets], axis=1)
    counted, others = (jnp.take_along_axis(of_sounds, places, axis=1).reshape(-1) for places in (counted, others))
    of_spans = _videos_of_spans(batch, of_sounds).reshape(-1)[outputs["stuff_to_span"]["_spans"]]
    return {
        "imgs_to_audio": (videos.reshape(-1), videos.reshape(-1)),
        "text_to_audio": (counted, jnp.concatenate([counted, others])),
        "stuff_to_span": (of_spans, of_spans),
    }


def _sounds_in_order(batch: Mapping[str, jax.Array], config: ReserveConfig) -> jax.Array:
    """Return the sounds of every example, the targets first (docs/spec/model.md 15.6), int32 `[examples, sounds]`."""
    asks = batch["text2audio"] == MASKAUDIO
    sounds = jnp.arange(config.audio_spans)
    hits = asks[..., None] & (batch["text2audio/audio_ptr"][..., None] == sounds)
    return jnp.argsort(-hits.sum(axis=(1, 2)), axis=1, stable=True)


def _videos_of_spans(batch: Mapping[str, jax.Array], of_sounds: jax.Array) -> jax.Array:
    """Return the video that each text span was spoken in, int32 `[examples, spans]`; -1 for web text."""
    rows = jnp.arange(batch["text_spans"].shape[1])
    sound = jnp.full((len(of_sounds), len(rows)), -1)
    for kind in ("text2audio", "audio2text"):
        hits = (batch[kind] == MASK)[..., None] & (batch[f"{kind}/text_ptr"][..., None] == rows)
        places = jnp.where(hits, batch[f"{kind}/audio_ptr"][..., None], -1)
        sound = jnp.maximum(sound, places.max(axis=(1, 2)))
    videos = jnp.take_along_axis(of_sounds, jnp.maximum(sound, 0), axis=1)
    return jnp.where(sound < 0, _NO_VIDEO, videos)
