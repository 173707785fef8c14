"""Devices as a mesh of data, fsdp and tensor, and where every array of a run lives on it.

Parameters are placed by rules on their names; optimizer moments follow the parameter they belong to, because their
paths end alike. An axis that does not divide a dimension leaves it whole.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model import attention
from model.config import ReserveConfig
from model.sharding import AXES, BATCH_AXES
from shards.storage.errors import UsageError
from train.config import MeshConfig

RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"qkv/kernel", ("fsdp", "tensor", None)),
    (r"qkv/bias", ("tensor", None)),
    (r"attn_proj/kernel", ("tensor", None, "fsdp")),
    (r"intermediate/kernel", ("fsdp", "tensor")),
    (r"intermediate/bias", ("tensor",)),
    (r"mlp_layer/out/kernel", ("tensor", "fsdp")),
    (r"Embed_0/embedding", ("tensor", "fsdp")),
    (r"seq_attnpool/(query|key|value)/kernel", ("fsdp", "tensor", None)),
    (r"seq_attnpool/(query|key|value)/bias", ("tensor", None)),
    (r"seq_attnpool/out/kernel", ("tensor", None, "fsdp")),
    (r"audio_encoder/embedding/kernel", (None, None, "fsdp")),
    (r"kernel", ("fsdp", None)),
)
"""The end of a parameter's path and the mesh axis of each of its dimensions; the first match counts."""

_SCANNED = "layers"


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Return the mesh of `devices`, by default all. Raises `UsageError` if the axes do not multiply to their number."""
    if devices is None:
        # Every host's devices lie together, so that its part of a batch does.
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    inner = config.fsdp * config.tensor
    data = len(devices) // inner if config.data == -1 else config.data
    if data * inner != len(devices):
        raise UsageError(
            f"a mesh of data {config.data}, fsdp {config.fsdp} and tensor {config.tensor} does not fit"
            f" {len(devices)} devices; their product must be that number"
        )
    return Mesh(np.array(devices).reshape(data, config.fsdp, config.tensor), AXES)


def for_mesh(model: ReserveConfig, mesh: Mesh) -> ReserveConfig:
    """Return the model with the attention of the mesh's devices, which need not be those of this process."""
    return dataclasses.replace(model, attention=attention.for_platform(model, mesh.devices.flat[0].platform))


def batch_shards(mesh: Mesh) -> int:
    """In how many parts a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(mesh: Mesh, batch_size: int, microbatches: int = 1, group: int = 1) -> None:
    """Raise `UsageError` unless a batch can be split over hosts, devices and microbatches into groups of examples."""
    # A mesh may be of devices that are not there.
    hosts = len({device.process_index for device in mesh.devices.flat})
    if batch_shards(mesh) % hosts:
        raise UsageError(
            f"the mesh axes data and fsdp have {batch_shards(mesh)} parts, which {hosts} hosts cannot share; make"
            " mesh.tensor a divisor of the devices of a host"
        )
    if batch_size % batch_shards(mesh):
        raise UsageError(
            f"batch_size {batch_size} is not divisible by the {batch_shards(mesh)} devices of the mesh axes data and"
            " fsdp; change one of them"
        )
    if batch_size % (batch_shards(mesh) * microbatches * group):
        whole = f" of whole groups of {group}" if group > 1 else ""
        raise UsageError(
            f"batch_size {batch_size} cannot be cut in {microbatches} microbatches{whole} on each of"
            f" {batch_shards(mesh)} devices; change one of them"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device in full."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Split along the first axis, the examples of a batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_shardings(mesh: Mesh, state: Any) -> Any:
    """Return the sharding of every leaf of a tree of parameters, or of arrays of their shapes, by name."""

    def placed(path: tuple, leaf: jax.Array) -> NamedSharding:
        return NamedSharding(mesh, partition(mesh, [key.key for key in path if hasattr(key, "key")], leaf.shape))

    return jax.tree_util.tree_map_with_path(placed, state)


def partition(mesh: Mesh, path: Sequence[str], shape: tuple[int, ...]) -> PartitionSpec:
    """Return where a parameter of this path is, by `RULES`."""
    name = "/".join(map(str, path))
    stacked = (None,) if _SCANNED in path else ()
    for pattern, axes in RULES:
        if re.search(f"(^|/){pattern}$", name) and len(stacked + axes) == len(shape):
            whole = (
                axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in _zip(axes, shape, stacked)
            )
            return PartitionSpec(*stacked, *whole)
    return PartitionSpec()


def to_devices(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Return the global batch from every host's part of it, parts in the order of the hosts."""
    sharding = by_example(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def _zip(axes: tuple[str | None, ...], shape: tuple[int, ...], stacked: tuple[None, ...]):
    return zip(axes, shape[len(stacked) :], strict=True)
