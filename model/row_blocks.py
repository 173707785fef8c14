"""Work on many rows against all columns, a block of rows at a time, so that the whole matrix never exists.

On a mesh every device takes its own rows, and a block is that many rows of each device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from model import sharding

ROWS_PER_BLOCK = 8192
"""Rows whose similarities are in a device's memory at once."""


def in_blocks(work: Callable[..., Any], rows: tuple[jax.Array, ...], rows_per_block: int = ROWS_PER_BLOCK) -> Any:
    """Return `work(*rows)`, with one entry per row, computed for `rows_per_block` rows of a device at once.

    `rows` are arrays `[count, ...]` laid out over the mesh like the examples; so are the results. The backward pass
    computes every block again.
    """
    count, parts = len(rows[0]), sharding.batch_parts()
    rows = jax.tree.map(sharding.by_example, rows)
    if count <= rows_per_block * parts:
        return work(*rows)
    each = count // parts
    if each * parts != count:
        raise ValueError(f"{count} rows cannot be shared by {parts} devices")
    blocks = -(-each // rows_per_block)
    extra = blocks * rows_per_block - each

    def cut(array: jax.Array) -> jax.Array:
        """`[blocks, parts * rows_per_block, ...]`, each device's rows staying on it."""
        split = array.reshape(parts, each, *array.shape[1:])
        padded = jnp.pad(split, ((0, 0), (0, extra)) + ((0, 0),) * (array.ndim - 1))
        turns = padded.reshape(parts, blocks, rows_per_block, *array.shape[1:]).swapaxes(0, 1)
        return sharding.turns_by_example(turns.reshape(blocks, -1, *array.shape[1:]))

    def joined(array: jax.Array) -> jax.Array:
        turns = array.reshape(blocks, parts, rows_per_block, *array.shape[2:]).swapaxes(0, 1)
        whole = turns.reshape(parts, -1, *array.shape[2:])[:, :each]
        return sharding.by_example(whole.reshape(count, *array.shape[2:]))

    results = jax.lax.map(lambda block: jax.checkpoint(work)(*block), tuple(map(cut, rows)))
    return jax.tree.map(joined, results)
