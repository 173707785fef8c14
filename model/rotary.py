"""Coordinates of tokens, and the tables that scale or rotate queries and keys by them.

The published weights were trained with a table that scales each channel by its position and never mixes channels; it is
kept for them (docs/spec/model.md 5). Textbook rotation is offered for new training.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

SEGMENT_SCALE = 16
"""Segment indices are divided by this, whatever the number of segments."""

TOKEN_SCALE = 1024
"""Token positions are divided by this, whatever the length."""

SPAN_SCALE = 16
"""Positions inside a text span are divided by this; a span is shorter."""

_HIGHEST_FREQUENCY = 5.0


@struct.dataclass
class RotaryTable:
    """Factors for queries and keys, `[..., n, 1, head]`: `x * own + other(x) * second`.

    `second` is None when the channels are only scaled. With `mixes` the other vector is `x` with the channels of each
    pair exchanged, else `x` itself.
    """

    own: jax.Array
    second: jax.Array | None
    mixes: bool = struct.field(pytree_node=False, default=False)

    def apply(self, x: jax.Array) -> jax.Array:
        """Queries or keys `[..., n, heads, head]` with their positions in, in their own dtype."""
        out = x * self.own
        if self.second is not None:
            other = x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape) if self.mixes else x
            out = out + other * self.second
        return out.astype(x.dtype)


def line(length: int, centred: bool) -> np.ndarray:
    """1-D coordinates: 1, 2, ..., or centred ones that skip zero (docs/spec/model.md 5.1). `float32 [length]`."""
    positions = np.arange(1, length + 1)
    if centred:
        positions = positions - length // 2
        positions = np.where(positions <= 0, positions - 1, positions)
    return positions.astype(np.float32)


def plane(rows: int, columns: int) -> np.ndarray:
    """Row-major (row, column) coordinates of a grid, `float32 [rows*columns, 2]` (docs/spec/model.md 5.2)."""
    pairs = np.stack(np.meshgrid(line(rows, True), line(columns, True), indexing="ij"), axis=-1)
    return (pairs.reshape(-1, 2) / (max(rows, columns) + 1)).astype(np.float32)


def multimodal(
    row: jax.Array | None = None,
    column: jax.Array | None = None,
    segment: jax.Array | None = None,
    token: jax.Array | None = None,
) -> jax.Array:
    """Joint coordinates `float32 [..., 4]` from scaled rows and columns and from segment and token indices.

    What is not given is 0 (docs/spec/model.md 5.4); at least one must be given.
    """
    shape = next(part.shape for part in (token, segment, row, column) if part is not None)
    parts = ((row, 1), (column, 1), (segment, SEGMENT_SCALE), (token, TOKEN_SCALE))
    axes = [jnp.zeros(shape) if part is None else part.astype(jnp.float32) / scale for part, scale in parts]
    return jnp.stack(axes, axis=-1)


def angles(coordinates: jax.Array, rotary_size: int) -> jax.Array:
    """Angles `[..., rotary_size / 2]` of coordinates `[..., axes]`, axis by axis, in the coordinates' dtype.

    The frequencies run geometrically from 1 to 5 half turns (docs/spec/model.md 5.5).
    """
    axes = coordinates.shape[-1]
    count = rotary_size // (2 * axes)
    frequencies = _HIGHEST_FREQUENCY ** (np.arange(count) / (count - 1))
    steps = jnp.asarray(frequencies.astype(np.float32), coordinates.dtype)
    theta = jnp.asarray(np.pi, coordinates.dtype) * coordinates[..., None] * steps
    return theta.reshape(*coordinates.shape[:-1], axes * count)


def table(coordinates: jax.Array, rotary_size: int, head_size: int, form: str = "published") -> RotaryTable:
    """Return the table of positions with `coordinates [..., n, axes]`; forms are "published", "parity" and "standard".

    "published" folds sine and cosine into one factor per channel; "parity" keeps them apart, in the coordinates' dtype,
    so that bfloat16 rounds as it did when the weights were trained (docs/spec/model.md 5.6).
    """
    theta = jnp.repeat(angles(coordinates, rotary_size), 2, axis=-1)
    signs = jnp.asarray(np.tile([-1.0, 1.0], rotary_size // 2), theta.dtype)
    sine, cosine = jnp.sin(theta), signs * jnp.cos(theta)
    if form == "published":
        return RotaryTable(_widened(sine + cosine, head_size, 1), None)
    if form == "parity":
        return RotaryTable(_widened(sine, head_size, 1), _widened(cosine, head_size, 0))
    return RotaryTable(_widened(jnp.cos(theta), head_size, 1), _widened(signs * sine, head_size, 0), mixes=True)


def _widened(factors: jax.Array, head_size: int, fill: int) -> jax.Array:
    """Factors `[..., n, rotary]` for all channels of a head and any number of heads, `[..., n, 1, head]`."""
    padding = [(0, 0)] * (factors.ndim - 1) + [(0, head_size - factors.shape[-1])]
    return jnp.pad(factors, padding, constant_values=fill)[..., None, :]
