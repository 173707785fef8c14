"""Duplicate frames of a data set: exact copies and near duplicates.

Every frame has two 64-bit names, the start of the SHA-256 of its JPEG and a perceptual hash. Sidecars store both, so
that duplicates are counted across any number of shards without reading them.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8, UInt64
from PIL import Image

NEAR_BITS = 3
"""Frames whose perceptual hashes differ in at most this many of 64 bits are near duplicates."""

_NEIGHBOURS = 4
_BAND_BITS = 16


@dataclass(frozen=True)
class Duplicates:
    """Counts of duplicate frames, without the first of each group of duplicates.

    `exact` frames are equal byte for byte; `near` frames are near duplicates of a frame of another video. The search
    for the latter compares each frame with its closest neighbours in four orders of the hashes: it has no false
    positives but may miss some. For very large data sets both are estimated from a sample.
    """

    frames: int
    exact: int
    near: int


def digest(jpeg: bytes) -> int:
    """Return the first eight bytes of the SHA-256 of a frame, which its record has too."""
    return int.from_bytes(hashlib.sha256(jpeg).digest()[:8], "big")


def perceptual_hash(grey: UInt8[np.ndarray, "h w"]) -> int:
    """Return 64 bits of a small grey image: whether each of 8x8 cells is brighter than the one to its left."""
    cells = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def encode(hashes: list[int]) -> str:
    """Encode hashes as text for a sidecar: base64 of little-endian uint64."""
    return base64.b64encode(np.array(hashes, "<u8").tobytes()).decode()


def decode(text: str) -> UInt64[np.ndarray, "n"]:
    """Decode hashes from text. Raises `TypeError` or `ValueError` if it is not valid."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<u8")


def near(hashes: UInt64[np.ndarray, "frames"], videos: UInt64[np.ndarray, "frames"]) -> Bool[np.ndarray, "frames"]:
    """Return whether each frame is a near duplicate of an earlier frame of another video."""
    is_near = np.zeros(hashes.size, bool)
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
            is_near[filled[np.maximum(a, b)[other]]] = True
    return is_near
