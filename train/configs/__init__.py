"""The presets of pretraining, one module each with its command, hardware and time."""

from __future__ import annotations

from train.configs import base, base_resadapt, large, large_resadapt, tiny

PRESETS = {
    "tiny": tiny.CONFIG,
    "base": base.CONFIG,
    "large": large.CONFIG,
    "base_resadapt": base_resadapt.CONFIG,
    "large_resadapt": large_resadapt.CONFIG,
}
