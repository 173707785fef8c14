"""Scaled dot-product attention by whichever implementation suits the device, and the lengths it needs.

A mask is given as segment ids: a token attends to the tokens that carry its own id, and negative ids are padding.
"cudnn" (GPUs) and "fused" (TPUs) never write the scores to memory; "products" suits CPUs, "xla" runs everywhere.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from model import sharding
from model.config import ReserveConfig
from model.rotary import RotaryTable

Implementation = Literal["products", "xla", "cudnn", "fused"]
Mask = Int[Array, "rows n"] | Float[Array, "rows 1 n n"]
"""What `prepare_mask` makes: for "fused" segment ids `int32 [batch, n]`, else a bias `[batch, 1, n, n]`."""

BY_PLATFORM: dict[str, Implementation] = {"cpu": "products", "gpu": "cudnn", "cuda": "cudnn", "tpu": "fused"}
"""What `attention` "auto" means on a platform; elsewhere it means "xla"."""

PADDING_ID = -1
_MASKED = -1e10
_CUDNN_MULTIPLE = 8
_LANES = 128
_FUSED_SHORTEST = 16
"""Rows of a tile of bfloat16."""
_FUSED_LONGEST = 768


def for_platform(config: ReserveConfig, platform: str) -> Implementation:
    """Return the implementation that `config.attention` names on a platform, "cpu", "gpu" or "tpu"."""
    return BY_PLATFORM.get(platform, "xla") if config.attention == "auto" else config.attention


def implementation(config: ReserveConfig, rows: int, length: int) -> Implementation:
    """Return the implementation for `rows` sequences of `length`: `config.attention` where it applies, else "xla".

    cuDNN takes 16-bit numbers and heads of a multiple of 8 up to 128. `model.fused_attention` takes whole lanes of 128
    channels and tokens, or several short sequences together that fill them, and has no room for very long ones.
    Published numerics (`config.parity`) are plain products.
    """
    if config.parity:
        return "products"
    wanted = for_platform(config, jax.default_backend())
    if wanted == "cudnn":
        fits = config.dtype == "bfloat16" and config.head_size % 8 == 0 and config.head_size <= 128
        return "cudnn" if fits else "xla"
    if wanted == "fused":
        lanes = _LANES % config.head_size == 0 and config.hidden_size % _LANES == 0
        together = max(_LANES // padded_length(length, "fused"), 1)
        whole = rows % (sharding.batch_parts() * together) == 0
        return "fused" if lanes and whole and length <= _FUSED_LONGEST else "xla"
    return wanted


def padded_length(length: int, chosen: Implementation) -> int:
    """Return the length that sequences are padded to for an implementation.

    The gradient of cuDNN's attention exists for even lengths only, and multiples of 8 are the fast ones.
    """
    if chosen == "fused" and length <= _LANES // 2:
        return max(1 << (length - 1).bit_length(), _FUSED_SHORTEST)
    multiple = {"cudnn": _CUDNN_MULTIPLE, "fused": _LANES}.get(chosen, 1)
    return -(-length // multiple) * multiple


def attention_mask(segment_ids: Int[Array, "*batch n"]) -> Bool[Array, "*batch n n"]:
    """Return which token (rows) attends to which (columns): those of its own segment id that is not negative."""
    same = segment_ids[..., :, None] == segment_ids[..., None, :]
    return same & (segment_ids >= 0)[..., None, :]


def prepare_mask(segment_ids: Int[Array, "rows n"] | None, chosen: Implementation, dtype: str) -> Mask | None:
    """Return the mask of a stack's layers from segment ids; None stands for full attention.

    A bias is 0, or -1e10 where a token must not look: finite, so that a row without any partner has no NaN.
    """
    if segment_ids is None or chosen == "fused":
        return segment_ids
    return jnp.where(attention_mask(segment_ids), 0, _MASKED).astype(dtype)[:, None]


def attend(
    projected: Float[Array, "batch n projections head"],
    positions: RotaryTable,
    mask: Mask | None,
    config: ReserveConfig,
    chosen: Implementation,
) -> Float[Array, "batch n heads head"]:
    """Mix values over tokens, from the projected queries, keys and values of all heads.

    `mask` is that of `prepare_mask`. Scores and softmax are float32, with `config.parity` in the model's dtype. A row
    that may attend to nothing attends to everything alike.
    """
    if chosen == "fused":
        return _fused(projected, positions, mask, config)
    query, key, value = jnp.split(projected, 3, axis=-2)
    # Scaling the queries is cheaper than scaling the scores, and what the published model does.
    query = positions.apply(query) / jnp.asarray(config.head_size**0.5, query.dtype)
    key = positions.apply(key)
    if chosen == "products":
        return _products(query, key, value, mask, config)
    if chosen == "xla":
        return jax.nn.dot_product_attention(query, key, value, bias=mask, scale=1.0, implementation="xla")
    by_head = sharding.by_example_and_head(config.heads)
    masks = sharding.by_example_if_many(mask)
    return sharding.per_device(_cudnn, (query, key, value, mask), (by_head, by_head, by_head, masks), by_head)


def _products(
    query: Float[Array, "batch q heads head"],
    key: Float[Array, "batch k heads head"],
    value: Float[Array, "batch k heads head"],
    bias: Float[Array, "rows 1 q k"] | None,
    config: ReserveConfig,
) -> Float[Array, "batch q heads head"]:
    # On CPUs the gradient of `jax.nn.dot_product_attention` adds a seventh to a small model's step.
    score_dtype = query.dtype if config.parity else jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=score_dtype)
    if bias is not None:
        scores = scores + bias
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _cudnn(
    query: Float[Array, "batch q heads head"],
    key: Float[Array, "batch k heads head"],
    value: Float[Array, "batch k heads head"],
    bias: Float[Array, "rows 1 q k"] | None,
) -> Float[Array, "batch q heads head"]:
    return jax.nn.dot_product_attention(query, key, value, bias=bias, scale=1.0, implementation="cudnn")


def _fused(
    projected: Float[Array, "batch n projections head"],
    positions: RotaryTable,
    segment_ids: Int[Array, "rows n"] | None,
    config: ReserveConfig,
) -> Float[Array, "batch n heads head"]:
    batch, length = projected.shape[:2]
    ids = jnp.zeros((1, 1), jnp.int32) if segment_ids is None else segment_ids
    ids = jnp.broadcast_to(ids, (batch, length))
    own, second = (
        None if table is None else table.reshape(-1, length, config.head_size)
        for table in (positions.own, positions.second)
    )
    # Queries, keys and values are split over devices head by head.
    parts = projected.reshape(batch, length, 3, config.heads, config.head_size)
    together = _LANES // config.head_size
    tables = (sharding.by_example_if_many(own), sharding.by_example_if_many(second))
    specs = (sharding.by_example_and_head(config.heads, 1, together), *tables, sharding.by_example_if_many(ids))
    made = sharding.by_example_and_head(config.heads, together=together)
    return sharding.per_device(_fused_rows, (parts, own, second, ids), specs, made)


def _fused_rows(
    parts: Float[Array, "batch n 3 heads head"],
    own: Float[Array, "tables n head"],
    second: Float[Array, "tables n head"] | None,
    ids: Int[Array, "batch n"],
) -> Float[Array, "batch n heads head"]:
    """Mix whole rows; several short ones are one row of different segment ids."""
    # Only runs on TPUs import Pallas.
    from model import fused_attention

    batch, length, _, heads, head = parts.shape
    together = max(_LANES // length, 1)

    def joined(array: jax.Array) -> jax.Array:
        if len(array) == 1 < together:
            array = jnp.broadcast_to(array, (together, *array.shape[1:]))
        return array.reshape(-1, together * length, *array.shape[2:])

    if together > 1:
        ids = jnp.where(ids < 0, ids, ids * together + jnp.arange(batch)[:, None] % together)
    flat = joined(parts.reshape(batch, length, -1))
    tables = (None if table is None else joined(table) for table in (own, second))
    mixed: jax.Array = fused_attention.attention(flat, *tables, joined(ids), heads)
    return mixed.reshape(batch, length, heads, head)
