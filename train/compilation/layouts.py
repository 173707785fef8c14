"""Layouts of the published models on devices: sharding, recomputation and microbatches, by model and accelerator.

Chosen from compiled programs (`python -m train.compile`, docs/performance.md). A layout decides speed and memory and
never numbers, so a run may move to other devices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.config import BASE, LARGE, Remat, RematPolicy, ReserveConfig
from train.config import MeshConfig, TrainConfig

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Layout:
    """How a model is laid over devices of a kind."""

    examples: int
    """What a device encodes at once, of images of the published grid."""
    remat: RematPolicy
    fsdp: int = 1
    unroll: bool = False
    """Write the loop over layers out, so that GPUs do not copy what the backward pass needs."""


LAYOUTS = {
    (BASE.hidden_size, "TPU v4"): Layout(16, "full"),
    (BASE.hidden_size, "TPU v5 lite"): Layout(16, "full"),
    (BASE.hidden_size, "TPU v5"): Layout(16, "dots"),
    (BASE.hidden_size, "TPU v6"): Layout(16, "full"),
    (BASE.hidden_size, "NVIDIA H100"): Layout(16, "dots", unroll=True),
    (BASE.hidden_size, "NVIDIA H200"): Layout(32, "dots", unroll=True),
    (LARGE.hidden_size, "TPU v4"): Layout(16, "full", fsdp=4),
    (LARGE.hidden_size, "TPU v5 lite"): Layout(4, "full", fsdp=4),
    (LARGE.hidden_size, "TPU v5"): Layout(16, "full", fsdp=4),
    (LARGE.hidden_size, "TPU v6"): Layout(16, "full", fsdp=4),
    (LARGE.hidden_size, "NVIDIA H100"): Layout(8, "dots", unroll=True),
    (LARGE.hidden_size, "NVIDIA H200"): Layout(8, "dots", unroll=True),
}
"""By hidden size of the model and the start of the device's kind; the first that fits counts."""


def for_devices(config: TrainConfig, devices: Sequence[Any]) -> TrainConfig:
    """Return the run with the layout of its model on these devices; unchanged for `layout="given"` and unknown devices.

    Axes of the mesh are only chosen where the configuration leaves them alone, and so are turns.
    """
    layout = _layout(config.model, devices[0].device_kind) if config.layout == "auto" else None
    if layout is None:
        return config
    mesh = config.mesh
    if mesh == MeshConfig():
        mesh = MeshConfig(fsdp=math.gcd(layout.fsdp, len(devices)))
    parts = max(len(devices) // mesh.tensor, 1)
    each = config.batch_size // parts
    at_once = max(layout.examples * math.prod(BASE.grid) // config.model.patches, 1)
    turns = config.microbatches
    if turns == 1:
        turns = next((n for n in range(-(-each // at_once), each + 1) if each % n == 0), 1) if each else 1
    policy = Remat(vision=layout.remat, audio=layout.remat, span="none", joint=layout.remat)
    model = dataclasses.replace(config.model, remat=policy, unroll_layers=layout.unroll)
    return dataclasses.replace(config, model=model, mesh=mesh, microbatches=turns)


def _layout(model: ReserveConfig, kind: str) -> Layout | None:
    if model.hidden_size not in (BASE.hidden_size, LARGE.hidden_size):
        return None
    layouts = (
        layout for (size, start), layout in LAYOUTS.items() if size == model.hidden_size and kind.startswith(start)
    )
    return next(layouts, None)
