"""The names of frames in bounded space: of all names those with the smallest hashes, and how many frames have them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.dataset import duplicates

MOST_NAMES = 16_384
"""Names that are kept; the frames of more are estimated from a sample of this size."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_ALL = 1 << 64
_ARRAYS = {"names": "<u8", "owners": "<u8", "counts": "<i8", "of_owner": "<i8"}


def _none() -> np.ndarray:
    return np.zeros(0, np.uint64)


def _no_counts() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass
class FrameSample:
    """Frames by name, for all names whose hash is below `limit`.

    `names uint64 [n]` are sorted by hash, `counts int64 [n]` say how many frames have each. `owners uint64 [n]` are the
    smallest of the digests of their videos, `of_owner int64 [n]` how many of the frames are that video's.
    """

    names: np.ndarray = field(default_factory=_none)
    owners: np.ndarray = field(default_factory=_none)
    counts: np.ndarray = field(default_factory=_no_counts)
    of_owner: np.ndarray = field(default_factory=_no_counts)
    limit: int = _ALL

    @classmethod
    def of(cls, names: np.ndarray, owners: np.ndarray) -> FrameSample:
        """The sample of some frames; both arrays are `uint64 [frames]`."""
        ones = np.ones(names.size, np.int64)
        return _sampled(names.astype(np.uint64), owners.astype(np.uint64), ones, ones, _ALL)

    def merged(self, other: FrameSample) -> FrameSample:
        """The sample of both."""
        if not other.names.size:
            return self
        joined = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS)
        return _sampled(*joined, min(self.limit, other.limit))

    @property
    def repeated(self) -> int:
        """Frames beyond the first of their name, estimated where not all names are kept."""
        return round(int((self.counts - 1).sum()) * self._scale)

    @property
    def alike(self) -> int:
        """Frames that look like one of another video, by names that differ in few bits; an estimate as above."""
        order = np.lexsort((self.names, self.owners))
        later = duplicates.near(self.names[order], self.owners[order])
        frames = int((self.counts - self.of_owner).sum()) + int(self.of_owner[order][later].sum())
        return round(frames * self._scale)

    @property
    def _scale(self) -> float:
        return _ALL / max(self.limit, 1)

    def to_json(self) -> dict[str, Any]:
        """JSON-able values."""
        packed = {
            name: base64.b64encode(getattr(self, name).astype(kind).tobytes()).decode()
            for name, kind in _ARRAYS.items()
        }
        return packed | {"limit": self.limit}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FrameSample:
        """The sample behind the values."""
        arrays = [np.frombuffer(base64.b64decode(values[name]), kind) for name, kind in _ARRAYS.items()]
        if len({array.size for array in arrays}) != 1 or type(values["limit"]) is not int:
            raise ValueError("the arrays of a sample have different lengths, or its limit is not a number")
        return cls(*arrays, values["limit"])


def _sampled(
    names: np.ndarray, owners: np.ndarray, counts: np.ndarray, of_owner: np.ndarray, limit: int
) -> FrameSample:
    """One entry for each name, and of the names those with the smallest hashes."""
    hashes = names * _MIX
    order = np.lexsort((owners, hashes))
    if limit < _ALL:
        order = order[hashes[order] < limit]
    names, owners, counts, of_owner, hashes = (a[order] for a in (names, owners, counts, of_owner, hashes))
    if not names.size:
        return FrameSample(limit=limit)
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    # The first entry of a name has its smallest owner.
    smallest = np.repeat(owners[starts], np.diff(np.append(starts, names.size)))
    counts, of_owner = (np.add.reduceat(a, starts) for a in (counts, np.where(owners == smallest, of_owner, 0)))
    names, owners, hashes = names[starts], owners[starts], hashes[starts]
    if names.size > MOST_NAMES:
        limit = int(hashes[MOST_NAMES])
    kept = min(names.size, MOST_NAMES)
    return FrameSample(names[:kept], owners[:kept], counts[:kept], of_owner[:kept], limit)
