"""Attention for TPUs as one kernel for each pass, for sequences short enough that a head's scores fit on the chip.

A library's flash attention walks over blocks of a long sequence, keeps running maxima and sums of every row in memory,
128 lanes wide, and wants heads in front of tokens. Here the whole sequence of a few heads is in vector memory: nothing
but queries, keys, values and outputs is read or written, in the layout of the dense layers around, positions are
applied on the way, and the backward pass computes the weights again. Numbers are those of the other implementations:
float32 scores and softmax.
"""

from __future__ import annotations

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


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def attention(
    projected: jax.Array, own: jax.Array, second: jax.Array | None, segment_ids: jax.Array, heads: int
) -> jax.Array:
    """Mix values by the softmax of rotated queries times rotated keys over the square root of their size.

    `projected [batch, n, 3 * heads * head]` holds queries, keys and values, each by head; the result is `[batch, n,
    heads * head]`. Queries and keys `x` become `x * own + other(x) * second`, as in `model.rotary.RotaryTable`, with
    tables `float32 [batch or 1, n, head]`; `other` exchanges the channels of each pair. A token attends to the tokens
    of its own id in `segment_ids int32 [batch, n]` that is not negative; a row without any attends to everything alike.
    `n` is a multiple of 128 up to `LONGEST`, a head divides 128, and all heads together are a multiple of it.
    """
    return _Call(projected, own, second, segment_ids, heads).forward()


def _forward(projected, own, second, segment_ids, heads):
    return attention(projected, own, second, segment_ids, heads), (projected, own, second, segment_ids)


def _backward(heads, saved, gradient):
    projected, own, second, segment_ids = saved
    return _Call(projected, own, second, segment_ids, heads).backward(gradient), None, None, None


attention.defvjp(_forward, _backward)


class _Call:
    """How the kernels walk over their arrays: every step of the grid is one row and as many heads as fill the lanes."""

    def __init__(self, projected, own, second, segment_ids, heads: int):
        self.batch, self.length, width = projected.shape
        self.head = width // (3 * heads)
        together = LANES // self.head
        self.groups, self.width, self.heads = heads // together, together * self.head, heads
        tables = [own] if second is None else [own, second]
        self.arrays = [segment_ids[:, None], *tables, projected, projected, projected]
        ids = pl.BlockSpec((1, 1, self.length), lambda row, *_: (row, 0, 0))
        self.specs = [ids, *map(self._table, tables), *map(self._part, range(3))]

    def forward(self) -> jax.Array:
        """Return the mixed values."""
        return pl.pallas_call(
            partial(_forward_kernel, self.head),
            grid=(self.batch, self.groups),
            in_specs=self.specs,
            out_specs=self._part(0),
            out_shape=jax.ShapeDtypeStruct((self.batch, self.length, self.heads * self.head), self.dtype),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
            cost_estimate=self._cost(products=2, passes=4),
        )(*self.arrays)

    def backward(self, gradient: jax.Array) -> jax.Array:
        """Return the gradient of `projected`; the third axis of the grid writes its three parts one after the other."""
        kept = pltpu.VMEM((2, self.length, self.width), self.dtype)
        return pl.pallas_call(
            partial(_backward_kernel, self.head),
            grid=(self.batch, self.groups, 3),
            in_specs=[*self.specs, self._part(0)],
            out_specs=pl.BlockSpec(
                (1, self.length, self.width), lambda row, group, part: (row, 0, part * self.groups + group)
            ),
            out_shape=jax.ShapeDtypeStruct((self.batch, self.length, 3 * self.heads * self.head), self.dtype),
            scratch_shapes=[kept],
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
            cost_estimate=self._cost(products=5, passes=7),
        )(*self.arrays, gradient)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of what is mixed."""
        return self.arrays[-1].dtype

    def _part(self, part: int) -> pl.BlockSpec:
        """Queries, keys or values of a step, or what has their place in an array of one part."""
        first = part * self.groups
        return pl.BlockSpec((1, self.length, self.width), lambda row, group, *_: (row, 0, first + group))

    def _table(self, table: jax.Array) -> pl.BlockSpec:
        shared = table.shape[0] == 1
        return pl.BlockSpec((1, self.length, self.head), lambda row, *_: (0 if shared else row, 0, 0))

    def _cost(self, products: int, passes: int) -> pl.CostEstimate:
        scores = self.batch * self.heads * self.length**2
        values = self.batch * self.length * self.heads * self.head
        return pl.CostEstimate(
            flops=products * 2 * scores * self.head,
            bytes_accessed=passes * values * self.dtype.itemsize,
            transcendentals=scores,
        )


def _forward_kernel(head, ids, *rest):
    *tables, query, key, value, out = rest
    allowed, turn = _allowed(ids), _Rotation(tables, query.dtype)
    for lanes in _heads(head, out):
        weights = _weights(turn(query[0, :, lanes], head**-0.5), turn(key[0, :, lanes]), allowed)
        mixed = _product(weights.astype(value.dtype), value[0, :, lanes], ((1,), (0,)))
        out[0, :, lanes] = mixed.astype(out.dtype)


def _backward_kernel(head, ids, *rest):
    *tables, query, key, value, gradient, out, kept = rest

    @pl.when(pl.program_id(2) == 0)
    def _():
        allowed, turn = _allowed(ids), _Rotation(tables, query.dtype)
        for lanes in _heads(head, out):
            q, k = turn(query[0, :, lanes], head**-0.5), turn(key[0, :, lanes])
            g = gradient[0, :, lanes]
            weights = _weights(q, k, allowed)
            kept[1, :, lanes] = _product(weights.astype(g.dtype), g, ((0,), (0,))).astype(kept.dtype)
            to_weights = _product(g, value[0, :, lanes], ((1,), (1,)))
            mean = jnp.sum(weights * to_weights, axis=1, keepdims=True)
            to_scores = (weights * (to_weights - mean)).astype(g.dtype)
            kept[0, :, lanes] = turn.back(_product(to_scores, q, ((0,), (0,)))).astype(kept.dtype)
            out[0, :, lanes] = turn.back(_product(to_scores, k, ((1,), (0,))), head**-0.5).astype(out.dtype)

    for part in (1, 2):

        @pl.when(pl.program_id(2) == part)
        def _(part=part):
            out[0] = kept[part - 1]


class _Rotation:
    """Queries or keys of one head with their positions, and the way back for gradients, in float32."""

    def __init__(self, tables, dtype: jnp.dtype):
        self.own, self.second = tables[0][0], tables[1][0] if len(tables) > 1 else None
        self.dtype = dtype

    def __call__(self, x: jax.Array, scale: float = 1.0) -> jax.Array:
        """`x [n, head]` rotated and scaled, rounded to the dtype of the products."""
        turned = x.astype(jnp.float32) * self.own
        if self.second is not None:
            turned = turned + self._other(x) * self.second
        return (turned.astype(self.dtype) * scale).astype(self.dtype)

    def back(self, gradient: jax.Array, scale: float = 1.0) -> jax.Array:
        """Return the gradient of `x` from that of its rotation."""
        gradient = gradient * scale
        turned = gradient * self.own
        if self.second is not None:
            turned = turned + self._other((gradient * self.second).astype(self.dtype))
        return turned

    def _other(self, x: jax.Array) -> jax.Array:
        """`x` with the channels of each pair exchanged, by a product with a permutation."""
        size = x.shape[1]
        rows, columns = (jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
        return _product(x, (rows == columns + 1 - 2 * (columns % 2)).astype(x.dtype), ((1,), (0,)))


def _heads(head: int, out) -> list[slice]:
    return [slice(start, start + head) for start in range(0, out.shape[2], head)]


def _allowed(ids) -> jax.Array:
    """Return which token (rows) attends to which (columns)."""
    length = ids.shape[2]
    columns = jnp.broadcast_to(ids[0], (length, length))
    return (columns == columns.T) & (columns >= 0)


def _weights(query: jax.Array, key: jax.Array, allowed: jax.Array) -> jax.Array:
    scores = jnp.where(allowed, _product(query, key, ((1,), (1,))), _MASKED)
    exponentials = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return exponentials / jnp.sum(exponentials, axis=1, keepdims=True)


def _product(left: jax.Array, right: jax.Array, contracted: tuple[tuple[int], tuple[int]]) -> jax.Array:
    return jax.lax.dot_general(left, right, (contracted, ((), ())), preferred_element_type=jnp.float32)
