"""How a row of tokens becomes a score, and scores a loss: shared by the classifiers of all tasks.

A classifier is the pretrained network and one new linear map without bias, `proj`, read at the first MASK
(docs/spec/training.md 7.3, 9.4, 10.4).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from model.reserve import JointInputs, MerlotReserve
from shards.tokens import MASK

PROJECTION_SCALE = 0.01
"""Standard deviation of a fresh `proj`."""


def fresh_projection(hidden_size: int, key: jax.Array) -> dict[str, jax.Array]:
    """Return the parameters of the new map: `kernel float32 [hidden, 1]`."""
    return {"kernel": PROJECTION_SCALE * jax.random.normal(key, (hidden_size, 1), jnp.float32)}


def scores_at_mask(model: MerlotReserve, inputs: JointInputs, tokens: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return one score for every row `[rows]`, float32, from the joint output at its first MASK."""
    hidden = model.joint(inputs)
    first = jnp.argmax(tokens == MASK, axis=1)
    at_mask = jnp.take_along_axis(hidden, first[:, None, None], axis=1)[:, 0].astype(jnp.float32)
    return (at_mask @ kernel.astype(jnp.float32))[:, 0]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Soft-max cross-entropy over the last axis, one value for each label."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
