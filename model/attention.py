"""Scaled dot-product attention by whichever implementation suits the device, and the lengths it needs.

A mask is given as segment ids: a token attends to the tokens that carry its own id, and negative ids are padding.
"cudnn" (GPUs) and "fused" (TPUs) never write the scores to memory; "products" suits CPUs, "xla" runs everywhere.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from model import sharding
from model.config import ReserveConfig

Implementation = Literal["products", "xla", "cudnn", "fused"]
Mask = jax.Array
"""What `prepare_mask` makes: for "fused" segment ids `int32 [batch, n]`, else a bias `[batch, 1, n, n]`."""

BY_PLATFORM: dict[str, Implementation] = {"cpu": "products", "gpu": "cudnn", "cuda": "cudnn", "tpu": "fused"}
"""What `attention` "auto" means on a platform; elsewhere it means "xla"."""

PADDING_ID = -1
_MASKED = -1e10
_CUDNN_MULTIPLE = 8
_FUSED_MULTIPLE = 128
_FUSED_LONGEST = 768


def for_platform(config: ReserveConfig, platform: str) -> Implementation:
    """The implementation that `config.attention` names on a platform, "cpu", "gpu" or "tpu"."""
    return BY_PLATFORM.get(platform, "xla") if config.attention == "auto" else config.attention


def implementation(config: ReserveConfig, length: int) -> Implementation:
    """What a stack over sequences of `length` uses: what `config.attention` names where it applies, else "xla".

    cuDNN takes 16-bit numbers and heads of a multiple of 8 up to 128. `model.fused_attention` takes whole lanes of 128
    tokens and channels, so short sequences would be mostly padding, and has no room for very long ones. Published
    numerics (`config.parity`) are plain products.
    """
    if config.parity:
        return "products"
    wanted = for_platform(config, jax.default_backend())
    if wanted == "cudnn":
        fits = config.dtype == "bfloat16" and config.head_size % 8 == 0 and config.head_size <= 128
        return "cudnn" if fits else "xla"
    if wanted == "fused":
        fits = _FUSED_MULTIPLE < length <= _FUSED_LONGEST and _FUSED_MULTIPLE % config.head_size == 0
        return "fused" if fits else "xla"
    return wanted


def padded_length(length: int, chosen: Implementation) -> int:
    """The length that sequences are padded to for an implementation.

    The gradient of cuDNN's attention exists for even lengths only, and multiples of 8 are the fast ones.
    """
    multiple = {"cudnn": _CUDNN_MULTIPLE, "fused": _FUSED_MULTIPLE}.get(chosen, 1)
    return -(-length // multiple) * multiple


def attention_mask(segment_ids: jax.Array) -> jax.Array:
    """Which token attends to which, `bool [..., n, n]`, from segment ids `[..., n]`."""
    same = segment_ids[..., :, None] == segment_ids[..., None, :]
    return same & (segment_ids >= 0)[..., None, :]


def prepare_mask(segment_ids: jax.Array | None, chosen: Implementation, dtype: str) -> Mask | None:
    """The mask of a stack's layers from segment ids `[batch, n]`; None means that everything attends to everything.

    A bias is 0, or -1e10 where a token must not look: finite, so that a row without any partner has no NaN.
    """
    if segment_ids is None or chosen == "fused":
        return segment_ids
    return jnp.where(attention_mask(segment_ids), 0, _MASKED).astype(dtype)[:, None]


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: Mask | None, config: ReserveConfig, chosen: Implementation
) -> jax.Array:
    """Attention over `[batch, n, heads, head]` with a mask of `prepare_mask`.

    Scores and softmax are float32, with `config.parity` in the model's dtype. A row that may attend to nothing attends
    to everything alike.
    """
    # Scaling the queries is cheaper than scaling the scores, and what the published model does.
    query = query / jnp.asarray(config.head_size**0.5, query.dtype)
    if chosen == "products":
        return _products(query, key, value, mask, config)
    if chosen == "xla":
        return jax.nn.dot_product_attention(query, key, value, bias=mask, scale=1.0, implementation="xla")
    kernel = _cudnn if chosen == "cudnn" else _fused
    heads = query.shape[2]
    return sharding.per_device(kernel, heads, (query, key, value, mask), (True, True, True, False))


def _products(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None, config: ReserveConfig
) -> jax.Array:
    # On CPUs the gradient of `jax.nn.dot_product_attention` adds a seventh to a small model's step.
    score_dtype = query.dtype if config.parity else jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=score_dtype)
    if bias is not None:
        scores = scores + bias
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, bias=bias, scale=1.0, implementation="cudnn")


def _fused(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    # Pallas is imported by those who run on TPUs only.
    from model import fused_attention

    ids = jnp.zeros((1, 1), jnp.int32) if segment_ids is None else segment_ids
    return fused_attention.attention(query, key, value, jnp.broadcast_to(ids, query.shape[:2]))
