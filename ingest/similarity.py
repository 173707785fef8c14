"""Visual filters: reject videos whose frames are too similar or show too few objects.

The rules are those of the published corpus (docs/spec/ingest.md 5.2 and 17): the mean cosine similarity of all pairs of
frames, and the sum of the best scores of the object classes. The caller passes the image embedder; the default one
compares colours and needs no weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from shards.arrays import jpeg as jpeg_pictures
from shards.outcomes import Outcome
from shards.records.segments import Segment
from shards.storage.errors import RecordError
from shards.storage.randomness import generator

VIDEO_PICTURES = 4
"""Pictures of a video that are compared, as many as it had thumbnails."""

PUBLISHED_MAX_SIMILARITY, PUBLISHED_MIN_OBJECTS = 0.9, 0.9
PUBLISHED_MAX_GROUP_SIMILARITY, PUBLISHED_MIN_GROUP_OBJECTS = 0.85, 1.0
OBJECT_FLOOR = 0.3
"""A class counts if some picture shows it with more than this score."""

_SMALL = (96, 54)
_LEVELS = 4
_CODE = np.array([_LEVELS**2, _LEVELS, 1])
_CORNERS = np.array([_CODE @ corner for corner in itertools.product((0, 1), repeat=3)])
_BOTTOM, _RIGHT = (np.arange(side) >= side // 2 for side in _SMALL[::-1])
_QUARTERS = ((2 * _BOTTOM[:, None] + _RIGHT) * _LEVELS**3).ravel()
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_MIDDLE = 110.0
"""The middle brightness that pictures are scaled to."""

_DARKEST = 2.0
"""Images with a lower middle brightness are scaled as if they had this one, because the rest is noise."""

_LEAST_SIZE = (160, 90)


@dataclass(frozen=True)
class Look:
    """The output of an embedder: features, and scores in [0, 1] of object classes, `None` if it detects no objects."""

    features: Float32[np.ndarray, "pictures width"]
    objects: Float32[np.ndarray, "pictures classes"] | None = None


Embed = Callable[[Sequence[np.ndarray]], Look]
"""An image embedder: maps RGB images, `uint8 [h, w, 3]` of any sizes, to a `Look`."""


class PictureError(ValueError):
    """A stored picture cannot be decoded."""


def perceptual(pictures: Sequence[np.ndarray]) -> Look:
    """Return square roots of how often each of 64 colours occurs in each quarter of a picture, at one exposure.

    The cosine of two such descriptors is the Bhattacharyya coefficient of their colours: 1 for the same picture, also
    if things in it moved a little, as in slides and recorded screens; far less after a cut to another place. Dark
    footage and a picture under another exposure have the descriptor of ordinary ones, because each picture is scaled to
    one middle brightness, and a colour between two of the 64 counts for both in proportion.
    """
    features = np.zeros((len(pictures), 4 * _LEVELS**3), np.float32)
    for i, picture in enumerate(pictures):
        small = np.asarray(Image.fromarray(picture).resize(_SMALL, Image.Resampling.BILINEAR))
        pixels = small.reshape(-1, 3).astype(np.float32)
        features[i] = np.sqrt(_colours(pixels * (_MIDDLE / max(_middle_brightness(pixels), _DARKEST))))
    return Look(features)


def _middle_brightness(pixels: np.ndarray) -> float:
    """Return the mean of the middle fifth of the brightnesses of `pixels [n, 3]`.

    A median, so that bright things that come and go do not count; a mean, so that a picture half bright and half dark
    has a steady one.
    """
    brightness = np.sort(pixels @ _LUMA)
    return float(brightness[int(0.4 * len(brightness)) : int(0.6 * len(brightness)) + 1].mean())


def _colours(pixels: np.ndarray) -> np.ndarray:
    """How often each colour occurs in each quarter of the small picture, `float64 [4 * 64]`.

    Each of `pixels [n, 3]` counts for the eight colours around it in proportion (trilinear interpolation).
    """
    position = np.clip(pixels * (_LEVELS / 256) - 0.5, 0, _LEVELS - 1).T
    below = np.minimum(position.astype(np.int64), _LEVELS - 2)
    upper = position - below
    red, green, blue = np.stack([1 - upper, upper], axis=1)
    weights = red[:, None, None] * green[None, :, None] * blue[None, None, :]
    codes = _QUARTERS + _CODE @ below + _CORNERS[:, None]
    return np.bincount(codes.ravel(), weights.ravel(), minlength=4 * _LEVELS**3)


def similarity(features: np.ndarray) -> float:
    """Return the mean cosine similarity of all pairs of rows of `features [n, width]`; 1 for a single row."""
    if len(features) < 2:
        return 1.0
    unit = features.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    pairs = np.triu_indices(len(unit), 1)
    return float((unit @ unit.T)[pairs].mean())


def object_count(objects: np.ndarray) -> float:
    """Return the sum over classes of the best score of any image, of scores above `OBJECT_FLOOR`."""
    best = objects.astype(np.float64).max(axis=0)
    return float(best[best > OBJECT_FLOOR].sum())


@dataclass(frozen=True)
class GroupRules:
    """The second look, at the pictures of an example: thresholds (`None` is off) and the share of examples looked at.

    The published values are 0.85, 1.0 and 0.1. `embedder` names what sees the pictures.
    """

    embedder: str
    seed: int
    max_similarity: float | None = None
    min_objects: float | None = None
    probability: float = 1.0

    @property
    def active(self) -> bool:
        """Whether any example can break a rule."""
        return (self.max_similarity, self.min_objects) != (None, None) and self.probability > 0

    def draws(self, shard: str, number: int) -> bool:
        """Return whether an example of a shard is evaluated."""
        return generator(self.seed, "group", shard, number).random() < self.probability

    def broken(self, scores: dict[str, Any]) -> Outcome | None:
        """Return the rule that an example with these scores violates."""
        if self.max_similarity is not None and scores["similarity"] > self.max_similarity:
            return Outcome.TOO_ALIKE
        if self.min_objects is not None and "objects" in scores and scores["objects"] < self.min_objects:
            return Outcome.TOO_EMPTY
        return None


def score(jpegs: Sequence[bytes], embed: Embed) -> dict[str, Any]:
    """Return the scores of some pictures: `similarity`, and `objects` if the embedder knows them.

    Raises `PictureError`.
    """
    look = embed([decode(jpeg) for jpeg in jpegs])
    scores = {"similarity": round(similarity(look.features), 4)}
    return scores if look.objects is None else scores | {"objects": round(object_count(look.objects), 4)}


def decode(jpeg: bytes) -> np.ndarray:
    """Return a picture at the smallest scale that is at least 160 by 90, `uint8 [h, w, 3]`. Raises `PictureError`."""
    try:
        return np.asarray(jpeg_pictures.reduced(jpeg, "RGB", _LEAST_SIZE))
    except RecordError as error:
        raise PictureError(f"a picture of {len(jpeg)} bytes cannot be decoded: {error}") from None


def spread(count: int, wanted: int = VIDEO_PICTURES) -> list[int]:
    """Return the numbers of `wanted` of `count` pictures in equal steps, each from the middle of its step.

    All if fewer.
    """
    return sorted({int((i + 0.5) * count / wanted) for i in range(wanted)})


def group_pictures(segments: Sequence[Segment]) -> list[bytes]:
    """Return every other picture of an example, from the first on (docs/spec/ingest.md 17)."""
    return [segment.image for segment in segments[::2]]
