"""Randomness as a function of names.

Every random choice in the project comes from a generator keyed by a seed and the names of what it decides about, so
that no clock, no global state and no order of workers can change a result.
"""

from __future__ import annotations

import hashlib

import numpy as np


def digest(seed: int, *names: str | int) -> bytes:
    """16 bytes that depend on the seed and the names alone."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A counter-based generator keyed by (seed, names)."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(seed, *names), "little")))
