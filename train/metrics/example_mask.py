"""Which examples of a batch take part in the contrastive objectives.

Rows that fill up a last batch, and second copies of a record, must be neither queries nor candidates: a pair of a copy
is as right as the partner itself, and would count as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from model import sharding
from model.config import ReserveConfig
from model.objectives import Outputs


def copies(digests: jax.Array) -> jax.Array:
    """Mark the examples that an earlier row of the global batch holds too: bool `[examples]`.

    `digests int32 [examples, 2]` are the reader's `record_digest`.
    """
    every = sharding.replicated(digests)
    rows = jnp.arange(len(digests))
    equal = (digests[:, None] == every).all(axis=-1) & (rows < rows[:, None])
    return equal.any(axis=1)


def only(outputs: Outputs, chosen: jax.Array, batch: Mapping[str, jax.Array], config: ReserveConfig) -> Outputs:
    """Make the pairs of all examples but the `chosen bool [examples]` invalid, as queries and as candidates.

    `outputs` are those of `train.step.global_outputs` for the whole batch. Vectors of invalid pairs become zero, so
    that nothing that an empty row leads to, such as a NaN, reaches a sum.
    """
    masked: Outputs = {}
    for objective, examples in pair_examples(outputs, batch, config).items():
        arrays = outputs[objective]
        keep = chosen[examples]
        valid = arrays.get("_valid", jnp.ones(len(keep), bool)) & keep
        masked[objective] = {**arrays, "_valid": valid}
        for name in ("x", "y"):
            masked[objective][name] = jnp.where(keep[:, None], arrays[name], 0)
        if "y_extra" in arrays:
            extra = jnp.repeat(chosen, len(arrays["y_extra"]) // len(chosen))
            masked[objective]["y_extra"] = jnp.where(extra[:, None], arrays["y_extra"], 0)
            masked[objective]["_extra_valid"] = extra
    return masked


def pair_examples(outputs: Outputs, batch: Mapping[str, jax.Array], config: ReserveConfig) -> dict[str, jax.Array]:
    """Return the example that each pair of each objective belongs to, int32 `[pairs]`."""
    examples = jnp.arange(batch["images"].shape[0])
    return {
        "imgs_to_audio": jnp.repeat(examples, config.segments),
        "text_to_audio": jnp.repeat(examples, config.targets * config.text2audio_sequences),
        "stuff_to_span": outputs["stuff_to_span"]["_spans"] // batch["text_spans"].shape[1],
    }
