"""Peak rates of accelerators, and the memory that a run has used.

Figures are the makers', for one JAX device, which is a chip except on TPU v3, where it is one of a chip's two cores.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

import jax

_GB = 1e9
_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """A kind of device: the start of its name in JAX, and what it can do at most.

    `flops` are dense bfloat16 operations a second, `memory` the bytes of main memory, `bandwidth` the bytes a second
    between it and the cores, `interconnect` the bytes a second that a device sends to its neighbours.
    """

    kind: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float


CHIPS = (
    Chip("NVIDIA H200", 989e12, 141 * _GB, 4800 * _GB, 450 * _GB),
    Chip("NVIDIA H100", 989e12, 80 * _GB, 3350 * _GB, 450 * _GB),
    Chip("NVIDIA A100", 312e12, 80 * _GB, 2039 * _GB, 300 * _GB),
    Chip("TPU v3", 61.5e12, 16 * _GIB, 450 * _GB, 41 * _GB),
    Chip("TPU v4", 275e12, 32 * _GIB, 1228 * _GB, 150 * _GB),
    Chip("TPU v5 lite", 197e12, 16 * _GIB, 819 * _GB, 100 * _GB),
    Chip("TPU v5e", 197e12, 16 * _GIB, 819 * _GB, 100 * _GB),
    Chip("TPU v5", 459e12, 95 * _GIB, 2765 * _GB, 300 * _GB),
    Chip("TPU v6", 918e12, 32 * _GIB, 1640 * _GB, 224 * _GB),
)
"""The first whose `kind` begins a device's kind counts. A TPU's interconnect is half of what the maker states for both
directions."""


def chip(kind: str) -> Chip | None:
    """Return what is known of devices of this kind; None if nothing is."""
    return next((chip for chip in CHIPS if kind.startswith(chip.kind)), None)


def utilisation(flops_per_second: float) -> float | None:
    """Return which share of the peak of all devices of the run so many operations a second are; None if not known."""
    known = chip(jax.devices()[0].device_kind)
    return None if known is None else flops_per_second / (known.flops * jax.device_count())


def memory() -> dict[str, float]:
    """Return the most memory so far in GiB: of this process, and of its first device where that counts."""
    # Linux counts in KiB.
    figures = {"host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        figures["device_memory_gib"] = stats["peak_bytes_in_use"] / _GIB
    return figures
