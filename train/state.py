"""The state of a run; also as a tree of shapes or shardings, which is why its fields state no shapes."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct


@struct.dataclass
class TrainState:
    """All that a step changes.

    `key uint32 [2]` is the run's random key, the same throughout; `skipped` and `skipped_in_a_row` count updates that
    were left out.
    """

    step: jax.Array
    params: dict
    opt_state: Any
    key: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array
