"""What is known of devices: their peak in bfloat16, and how much memory a run has taken.

Peaks are the makers' figures for dense products, for one JAX device, which is a chip except on TPU v3, where it is one
of a chip's two cores.
"""

from __future__ import annotations

import resource

import jax

PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    ("NVIDIA H200", 989e12),
    ("NVIDIA H100", 989e12),
    ("NVIDIA A100", 312e12),
    ("TPU v3", 61.5e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v6", 918e12),
)
"""The start of a device's kind and its operations a second; the first match counts."""

_GIB = 2**30


def peak_flops(kind: str) -> float | None:
    """The bfloat16 peak of a device of this kind in operations a second; None if it is not known."""
    return next((peak for start, peak in PEAK_FLOPS if kind.startswith(start)), None)


def utilisation(flops_per_second: float) -> float | None:
    """Which share of the peak of all devices of the run so many operations a second are; None if it is not known."""
    peak = peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else flops_per_second / (peak * jax.device_count())


def memory() -> dict[str, float]:
    """The most memory so far in GiB: of this process, and of its first device where that counts."""
    # Linux counts in KiB.
    figures = {"host_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        figures["device_memory_gib"] = stats["peak_bytes_in_use"] / _GIB
    return figures
