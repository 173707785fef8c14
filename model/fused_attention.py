"""Attention for TPUs as one kernel for each pass, for sequences short enough that a head's scores fit on the chip.

A library's flash attention walks over blocks of a long sequence, keeps running maxima and sums of every row in memory,
128 lanes wide, and wants heads in front of tokens. Here the whole sequence of a few heads is in vector memory: nothing
but queries, keys, values and outputs is read or written, in the layout of the dense layers around, and the backward
pass computes the weights again. Numbers are those of `jax.nn.dot_product_attention`: float32 scores and softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
"""Lengths are multiples of this, and as many channels are read at once."""
LONGEST = 768
"""The backward pass keeps a few float32 matrices of scores in 16 MiB."""

_MASKED = -1e10


@jax.custom_vjp
def attention(query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Mix `value` by the softmax of `query . key`, all `[batch, n, heads, head]`, with `segment_ids int32 [batch, n]`.

    A token attends to the tokens of its own id that is not negative; a row without any attends to everything alike. `n`
    is a multiple of 128 up to `LONGEST`, and a head divides 128.
    """
    return _call(_forward_kernel, 1, 2, segment_ids, query, key, value)[0]


def _forward(query, key, value, segment_ids):
    return attention(query, key, value, segment_ids), (query, key, value, segment_ids)


def _backward(saved, gradient):
    query, key, value, segment_ids = saved
    return (*_call(_backward_kernel, 3, 5, segment_ids, query, key, value, gradient), None)


attention.defvjp(_forward, _backward)


def _call(kernel: Callable, outputs: int, products: int, segment_ids: jax.Array, *arrays: jax.Array) -> list[jax.Array]:
    """Run a kernel on every row and group of heads; it makes so many arrays like the inputs by so many products."""
    batch, length, heads, head = arrays[0].shape
    together = LANES // head if heads % (LANES // head) == 0 else heads
    width = together * head
    block = pl.BlockSpec((1, length, width), lambda row, group: (row, 0, group))
    ids = pl.BlockSpec((1, 1, length), lambda row, group: (row, 0, 0))
    flat = [array.reshape(batch, length, heads * head) for array in arrays]
    made = pl.pallas_call(
        partial(kernel, head),
        grid=(batch, heads // together),
        in_specs=[ids, *[block] * len(flat)],
        out_specs=[block] * outputs,
        out_shape=[jax.ShapeDtypeStruct(flat[0].shape, flat[0].dtype)] * outputs,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        cost_estimate=pl.CostEstimate(
            flops=products * 2 * batch * heads * length**2 * head,
            bytes_accessed=(len(flat) + outputs) * flat[0].size * flat[0].dtype.itemsize,
            transcendentals=batch * heads * length**2,
        ),
    )(segment_ids[:, None], *flat)
    return [array.reshape(arrays[0].shape) for array in made]


def _forward_kernel(head, ids, query, key, value, out):
    allowed = _allowed(ids)
    for lanes in _heads(head, out):
        weights = _weights(query[0, :, lanes], key[0, :, lanes], allowed)
        mixed = _product(weights.astype(value.dtype), value[0, :, lanes], ((1,), (0,)))
        out[0, :, lanes] = mixed.astype(out.dtype)


def _backward_kernel(head, ids, query, key, value, gradient, to_query, to_key, to_value):
    allowed = _allowed(ids)
    for lanes in _heads(head, to_query):
        q, k, v, g = (array[0, :, lanes] for array in (query, key, value, gradient))
        weights = _weights(q, k, allowed)
        to_value[0, :, lanes] = _product(weights.astype(g.dtype), g, ((0,), (0,))).astype(to_value.dtype)
        to_weights = _product(g, v, ((1,), (1,)))
        mean = jnp.sum(weights * to_weights, axis=1, keepdims=True)
        to_scores = (weights * (to_weights - mean)).astype(q.dtype)
        to_query[0, :, lanes] = _product(to_scores, k, ((1,), (0,))).astype(to_query.dtype)
        to_key[0, :, lanes] = _product(to_scores, q, ((0,), (0,))).astype(to_key.dtype)


def _heads(head: int, out) -> list[slice]:
    return [slice(start, start + head) for start in range(0, out.shape[2], head)]


def _allowed(ids) -> jax.Array:
    """Which token (rows) attends to which (columns)."""
    length = ids.shape[2]
    columns = jnp.broadcast_to(ids[0], (length, length))
    return (columns == columns.T) & (columns >= 0)


def _weights(query: jax.Array, key: jax.Array, allowed: jax.Array) -> jax.Array:
    scores = jnp.where(allowed, _product(query, key, ((1,), (1,))), _MASKED)
    exponentials = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return exponentials / jnp.sum(exponentials, axis=1, keepdims=True)


def _product(left: jax.Array, right: jax.Array, contracted: tuple[tuple[int], tuple[int]]) -> jax.Array:
    return jax.lax.dot_general(left, right, (contracted, ((), ())), preferred_element_type=jnp.float32)
