"""The contrastive losses of pretraining, over all pairs of the global batch.

Each objective asks every vector for its partner among all of them, both ways; the total is the plain sum of the three
(docs/spec/model.md 16). Similarities are made in blocks of rows, so the whole matrix never exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, UInt32

from model import sharding
from model.objectives import SPAN_SOURCES
from model.row_blocks import ROWS_PER_BLOCK, in_blocks

_FEW = 1e-5


def contrastive(
    outputs: Mapping[str, Mapping[str, jax.Array]],
    parity: bool = False,
    mask_equal_spans: bool = False,
    rows_per_block: int = ROWS_PER_BLOCK,
) -> tuple[Float32[Array, ""], dict[str, Float32[Array, ""]]]:
    """Return the total loss and its parts from `model.objectives.pretraining_outputs`.

    Keys of the parts that start with `_` are not in the total: the span loss by source, and how many pairs each
    objective left out as invalid. Where an objective has `_valid`, its `_extra_valid bool [extras]` says which of
    `y_extra` are candidates, by default all. `parity` takes products in the vectors' own dtype; `mask_equal_spans`
    keeps other pairs with the same text out of the denominators.
    """
    info = {}
    for objective, arrays in outputs.items():
        same = _text_ids(arrays["_tokens"]) if mask_equal_spans and "_tokens" in arrays else None
        forward, backward = _both_ways(arrays, same, parity, rows_per_block)
        valid = arrays.get("_valid")
        info[objective] = (_mean(forward, valid) + _mean(backward, valid)) / 2
        if valid is not None:
            info[f"_{objective}_invalid"] = jnp.sum(~valid).astype(jnp.float32)
        if "_sources" in arrays:
            for label, source in enumerate(SPAN_SOURCES):
                weights = (arrays["_sources"] == label) & (True if valid is None else valid)
                parts = [(loss * weights).sum() / (weights.sum() + _FEW) for loss in (forward, backward)]
                info[f"_{objective}_from_{source}"] = (parts[0] + parts[1]) / 2
    total = reduce(jnp.add, (value for name, value in info.items() if not name.startswith("_")))
    return total, info


def _both_ways(
    arrays: Mapping[str, jax.Array], same: UInt32[Array, "pairs"] | None, parity: bool, rows_per_block: int
) -> tuple[Float32[Array, "pairs"], Float32[Array, "pairs"]]:
    """Return the losses of finding `y` from `x`, extras included, and `x` from `y`."""
    x, y, valid = arrays["x"], arrays["y"], arrays.get("_valid")
    extra = arrays.get("y_extra")
    targets = y if extra is None else jnp.concatenate([y, extra])
    target_valid = valid
    if valid is not None and extra is not None:
        target_valid = jnp.concatenate([valid, arrays.get("_extra_valid", jnp.ones(len(extra), bool))])
    product_type = x.dtype if parity else jnp.dtype(jnp.float32)
    forward = _nll(x, targets, target_valid, same, product_type, rows_per_block)
    return forward, _nll(y, x, valid, same, product_type, rows_per_block)


def _nll(
    queries: Float[Array, "pairs hidden"],
    keys: Float[Array, "candidates hidden"],
    key_valid: Bool[Array, "candidates"] | None,
    same: UInt32[Array, "pairs"] | None,
    product_type: jnp.dtype,
    rows_per_block: int,
) -> Float32[Array, "pairs"]:
    """Return `logsumexp_j(q_i . k_j) - q_i . k_i` for every query; key `i` is the partner of query `i`.

    The partner is always in the denominator, so an invalid pair stays finite.
    """
    keys = sharding.replicated(keys)

    def of_rows(own: jax.Array, rows: jax.Array) -> jax.Array:
        logits = jnp.einsum("qh,kh->qk", rows, keys, preferred_element_type=product_type).astype(jnp.float32)
        partner = jnp.arange(len(keys)) == own[:, None]
        allowed = True if key_valid is None else key_valid
        if same is not None:
            allowed = allowed & (same[own, None] != same)
        if allowed is not True:
            logits = jnp.where(partner | allowed, logits, -jnp.inf)
        return jax.nn.logsumexp(logits, axis=-1) - jnp.where(partner, logits, 0).sum(axis=-1)

    return in_blocks(of_rows, (jnp.arange(len(queries)), queries), rows_per_block)


def _mean(values: Float32[Array, "pairs"], valid: Bool[Array, "pairs"] | None) -> Float32[Array, ""]:
    if valid is None:
        return values.mean()
    return jnp.where(valid, values, 0).sum() / jnp.maximum(valid.sum(), 1)


def _text_ids(tokens: Int[Array, "pairs length"]) -> UInt32[Array, "pairs"]:
    """Return a 32-bit fingerprint of each row of tokens."""
    factors = jnp.cumprod(jnp.full(tokens.shape[-1], 1_000_003, jnp.uint32))
    mixed = tokens.astype(jnp.uint32) * jnp.uint32(2_654_435_761)
    return ((mixed ^ (mixed >> 15)) * factors).sum(axis=-1, dtype=jnp.uint32)
