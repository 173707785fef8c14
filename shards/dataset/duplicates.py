"""Which frames a data set holds more than once: byte for byte, and to the eye.

Every frame has two 64-bit names, the start of its JPEG's SHA-256 and a perceptual hash; the sidecars keep both, so that
duplicates are counted across any number of shards without opening one.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

NEAR_BITS = 3
"""Frames whose perceptual hashes differ in at most so many of 64 bits look alike."""

_NEIGHBOURS = 4
_BAND_BITS = 16


@dataclass(frozen=True)
class Duplicates:
    """Frames beyond the first of their kind.

    `exact` are equal byte for byte, `near` look like a frame of another video. The search for near ones compares each
    frame with its closest neighbours in four orders of the hashes, so it can miss some and never invents one. Of very
    many frames both are estimated from a sample.
    """

    frames: int
    exact: int
    near: int


def digest(jpeg: bytes) -> int:
    """The first eight bytes of the SHA-256 that the record states too."""
    return int.from_bytes(hashlib.sha256(jpeg).digest()[:8], "big")


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits of a small grey picture `uint8 [h, w]`: whether each of 8x8 cells is brighter than the one beside it."""
    cells = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def encode(hashes: list[int]) -> str:
    """Hashes as text for a sidecar: base64 of little-endian uint64."""
    return base64.b64encode(np.array(hashes, "<u8").tobytes()).decode()


def decode(text: str) -> np.ndarray:
    """The hashes behind the text: `uint64 [n]`. Raises `TypeError` or `ValueError` if it is no such text."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<u8")


def near(hashes: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Whether each frame looks like an earlier one of another video: `bool [frames]`."""
    found = np.zeros(hashes.size, bool)
    filled = np.flatnonzero(hashes)
    names, owners = hashes[filled], videos[filled]
    for turn in range(0, 64, _BAND_BITS):
        rotated = names << np.uint64(turn) | names >> np.uint64((64 - turn) % 64)
        order = np.argsort(rotated)
        ordered = rotated[order]
        for step in range(1, _NEIGHBOURS + 1):
            at = np.flatnonzero(np.bitwise_count(ordered[step:] ^ ordered[:-step]) <= NEAR_BITS)
            a, b = order[at], order[at + step]
            other = owners[a] != owners[b]
            found[filled[np.maximum(a, b)[other]]] = True
    return found
