"""A bounded sample of the names of frames: those with the smallest hashes, with the number of frames of each."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from shards.dataset import duplicates

MOST_NAMES = 16_384
"""Maximum size of a sample; counts are exact up to this number of names and estimates beyond it."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_ALL = 1 << 64
_ARRAYS = {"names": "<u8", "owners": "<u8", "counts": "<i8", "of_owner": "<i8"}


def _none() -> np.ndarray:
    return np.zeros(0, np.uint64)


def _no_counts() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class FrameSample:
    """Frames by name, for all names whose hash is below `limit`, sorted by hash."""

    names: UInt64[np.ndarray, "n"] = field(default_factory=_none)
    owners: UInt64[np.ndarray, "n"] = field(default_factory=_none)
    """For each name the smallest of the digests of the videos that have it."""
    counts: Int64[np.ndarray, "n"] = field(default_factory=_no_counts)
    """The number of frames of each name."""
    of_owner: Int64[np.ndarray, "n"] = field(default_factory=_no_counts)
    """The number of these frames that belong to the owner."""
    limit: int = _ALL

    @classmethod
    def of(cls, names: UInt64[np.ndarray, "frames"], owners: UInt64[np.ndarray, "frames"]) -> FrameSample:
        """Return the sample of some frames, each with its name and the digest of its video."""
        ones = np.ones(names.size, np.int64)
        return _sampled(names.astype(np.uint64), owners.astype(np.uint64), ones, ones, _ALL)

    def merged(self, other: FrameSample) -> FrameSample:
        """Return the sample of the union."""
        if not other.names.size:
            return self
        names, owners, counts, of_owner = (
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS
        )
        return _sampled(names, owners, counts, of_owner, min(self.limit, other.limit))

    @property
    def repeated(self) -> int:
        """Number of frames beyond the first of their name; an estimate if the sample is incomplete."""
        return round(int((self.counts - 1).sum()) * self._scale)

    @property
    def alike(self) -> int:
        """Number of near duplicates of frames of other videos, by names that differ in few bits; estimated likewise."""
        order = np.lexsort((self.names, self.owners))
        later = duplicates.near(self.names[order], self.owners[order])
        frames = int((self.counts - self.of_owner).sum()) + int(self.of_owner[order][later].sum())
        return round(frames * self._scale)

    @property
    def _scale(self) -> float:
        return _ALL / max(self.limit, 1)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values."""
        packed = {
            name: base64.b64encode(getattr(self, name).astype(kind).tobytes()).decode()
            for name, kind in _ARRAYS.items()
        }
        return packed | {"limit": self.limit}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FrameSample:
        """Parse JSON values. Raises `ValueError`, `TypeError` or `LookupError` if they are not valid."""
        arrays = {name: np.frombuffer(base64.b64decode(values[name]), kind) for name, kind in _ARRAYS.items()}
        if len({array.size for array in arrays.values()}) != 1 or type(values["limit"]) is not int:
            raise ValueError("the arrays of a sample have different lengths, or its limit is not a number")
        return cls(**arrays, limit=values["limit"])


def _sampled(
    names: UInt64[np.ndarray, "m"],
    owners: UInt64[np.ndarray, "m"],
    counts: Int64[np.ndarray, "m"],
    of_owner: Int64[np.ndarray, "m"],
    limit: int,
) -> FrameSample:
    """Merge the entries of each name, and keep the names with the smallest hashes."""
    hashes = names * _MIX
    order = np.lexsort((owners, hashes))
    if limit < _ALL:
        order = order[hashes[order] < limit]
    names, owners, counts, of_owner, hashes = (a[order] for a in (names, owners, counts, of_owner, hashes))
    if not names.size:
        return FrameSample(limit=limit)
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    # The first entry of each name has the smallest owner.
    smallest = np.repeat(owners[starts], np.diff(np.append(starts, names.size)))
    counts, of_owner = (np.add.reduceat(a, starts) for a in (counts, np.where(owners == smallest, of_owner, 0)))
    names, owners, hashes = names[starts], owners[starts], hashes[starts]
    if names.size > MOST_NAMES:
        limit = int(hashes[MOST_NAMES])
    kept = min(names.size, MOST_NAMES)
    return FrameSample(names[:kept], owners[:kept], counts[:kept], of_owner[:kept], limit)
