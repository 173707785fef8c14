"""Where activations live on a mesh of devices, as hints that hold inside `on_mesh` and mean nothing outside it.

Examples are split over the axes `data` and `fsdp`, attention heads over `tensor`. Without these hints the compiler
would have to guess from the layout of the parameters, and splits the hidden dimension where it should gather weights.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""What the examples of a batch are split over."""
HEADS_AXIS = "tensor"


def on_mesh(mesh: Mesh) -> AbstractContextManager:
    """Return a context in which the network is traced for `mesh`, whose axes are `AXES`."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def batch_parts() -> int:
    """In how many parts the examples are split; 1 outside `on_mesh`."""
    mesh = _mesh()
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def by_example(x: jax.Array) -> jax.Array:
    """Return `x` split along its first axis, which counts examples or rows in the order of their examples."""
    return _constrained(x, PartitionSpec(BATCH_AXES))


def replicated(x: jax.Array) -> jax.Array:
    """Return `x` in full on every device."""
    return _constrained(x, PartitionSpec())


def turns_by_example(x: jax.Array) -> jax.Array:
    """Return `x [turns, examples, ...]` with every turn's examples split like a batch."""
    return _constrained(x, PartitionSpec(None, BATCH_AXES))


def by_example_and_head(heads: int, between: int = 0, together: int = 1) -> PartitionSpec:
    """Return how arrays `[batch, n, ..., heads, head]` lie, with `between` axes before the heads.

    Heads are split only where every device gets whole groups of `together`.
    """
    mesh = _mesh()
    splits = mesh is not None and heads % (mesh.shape[HEADS_AXIS] * together) == 0
    return PartitionSpec(BATCH_AXES, None, *[None] * between, HEADS_AXIS if splits else None)


def by_example_if_many(x: jax.Array | None) -> PartitionSpec | None:
    """Return how an array lies that has a first axis of examples, or of 1 for all of them."""
    return None if x is None else PartitionSpec(BATCH_AXES if x.shape[0] > 1 else None)


def per_device(kernel: Callable[..., jax.Array], arguments: tuple, specs: tuple, made: PartitionSpec) -> jax.Array:
    """Call a kernel that the compiler cannot split once on every device, on its part of arguments that lie as `specs`.

    The result lies as `made`.
    """
    mesh = _mesh()
    if mesh is None or mesh.size == 1:
        return kernel(*arguments)
    # The kernels say nothing about which devices' values differ, so JAX cannot check that.
    return jax.shard_map(kernel, mesh=mesh, in_specs=specs, out_specs=made, check_vma=False)(*arguments)


def _mesh() -> AbstractMesh | None:
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.axis_names == AXES else None


def _constrained(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    return x if _mesh() is None else jax.lax.with_sharding_constraint(x, spec)
