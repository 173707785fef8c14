"""Random generators keyed by a seed and names.

Every random choice in the project comes from a generator keyed by a seed and the names of the items it is about, so
that results do not depend on a clock, global state or the order of workers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def digest(seed: int, *names: str | int) -> bytes:
    """Return 16 bytes that depend on the seed and the names alone."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a counter-based generator keyed by (seed, names)."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(seed, *names), "little")))
