"""What a choice among scores is worth: 1 for the right one, a share where equal scores leave it open."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def credited(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return whether the label has the highest of `logits [..., n]`, float32 `[...]`: 1/k if k are equally high.

    An option of -inf does not take part. A row with NaN or an infinite highest score gets 0.
    """
    best = logits.max(axis=-1, keepdims=True)
    at_label = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    equal = (logits == best).sum(axis=-1)
    right = ((at_label == best) & jnp.isfinite(best))[..., 0]
    return jnp.where(right, 1 / jnp.maximum(equal, 1), 0)
