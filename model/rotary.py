"""Coordinates of tokens, and the tables that scale or rotate queries and keys by them.

The published weights were trained with a table that scales each channel by its position and never mixes channels; it is
kept for them (docs/spec/model.md 5). Textbook rotation is offered for new training.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Float32, Shaped

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

    own: Float[Array, "*tables n 1 head"]
    second: Float[Array, "*tables n 1 head"] | None
    mixes: bool = struct.field(pytree_node=False, default=False)

    def apply(self, x: Float[Array, "batch n heads head"]) -> Float[Array, "batch n heads head"]:
        """Return queries or keys with their positions applied, in their own dtype."""
        out = x * self.own
        if self.second is not None:
            other = x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape) if self.mixes else x
            out = out + other * self.second
        return out.astype(x.dtype)


def line(length: int, centred: bool) -> Float32[np.ndarray, "{length}"]:
    """Return 1-D coordinates: 1, 2, ..., or centred ones that skip zero (docs/spec/model.md 5.1)."""
    positions = np.arange(1, length + 1)
    if centred:
        positions = positions - length // 2
        positions = np.where(positions <= 0, positions - 1, positions)
    return positions.astype(np.float32)


def plane(rows: int, columns: int) -> Float32[np.ndarray, "{rows*columns} 2"]:
    """Return row-major (row, column) coordinates of a grid (docs/spec/model.md 5.2)."""
    pairs = np.stack(np.meshgrid(line(rows, True), line(columns, True), indexing="ij"), axis=-1)
    return (pairs.reshape(-1, 2) / (max(rows, columns) + 1)).astype(np.float32)


def multimodal(
    row: Shaped[Array, "*batch"] | None = None,
    column: Shaped[Array, "*batch"] | None = None,
    segment: Shaped[Array, "*batch"] | None = None,
    token: Shaped[Array, "*batch"] | None = None,
) -> Float32[Array, "*batch 4"]:
    """Return joint coordinates from scaled rows and columns and from segment and token indices.

    Missing ones are 0 (docs/spec/model.md 5.4); at least one must be given.
    """
    shape = next(part.shape for part in (token, segment, row, column) if part is not None)
    parts = ((row, 1), (column, 1), (segment, SEGMENT_SCALE), (token, TOKEN_SCALE))
    axes = [jnp.zeros(shape) if part is None else part.astype(jnp.float32) / scale for part, scale in parts]
    return jnp.stack(axes, axis=-1)


def angles(coordinates: Float[Array, "*batch axes"], rotary_size: int) -> Float[Array, "*batch {rotary_size//2}"]:
    """Return the angles of coordinates, axis by axis, in the coordinates' dtype.

    The frequencies run geometrically from 1 to 5 half turns (docs/spec/model.md 5.5).
    """
    axes = coordinates.shape[-1]
    count = rotary_size // (2 * axes)
    frequencies = _HIGHEST_FREQUENCY ** (np.arange(count) / (count - 1))
    steps = jnp.asarray(frequencies.astype(np.float32), coordinates.dtype)
    theta = jnp.asarray(np.pi, coordinates.dtype) * coordinates[..., None] * steps
    return theta.reshape(*coordinates.shape[:-1], axes * count)


def table(
    coordinates: Float[Array, "*batch n axes"], rotary_size: int, head_size: int, form: str = "published"
) -> RotaryTable:
    """Return the table of positions with these coordinates; forms are "published", "parity" and "standard".

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


def _widened(
    factors: Float[Array, "*batch n rotary"], head_size: int, fill: int
) -> Float[Array, "*batch n 1 {head_size}"]:
    """Return the factors for all channels of a head and any number of heads."""
    padding = [(0, 0)] * (factors.ndim - 1) + [(0, head_size - factors.shape[-1])]
    return jnp.pad(factors, padding, constant_values=fill)[..., None, :]
