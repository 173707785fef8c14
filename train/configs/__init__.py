"""The presets of pretraining, one module each with its command, hardware and time."""

from __future__ import annotations

from train.configs import base, base_resadapt, large, large_resadapt, tiny

_MODULES = {
    "tiny": tiny,
    "base": base,
    "large": large,
    "base_resadapt": base_resadapt,
    "large_resadapt": large_resadapt,
}
PRESETS = {name: module.CONFIG for name, module in _MODULES.items()}
DESCRIPTIONS = {name: f"{(module.__doc__ or '').partition(':')[0]}." for name, module in _MODULES.items()}
"""What each preset is, from the first sentence of its module."""
