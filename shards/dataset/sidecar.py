"""The sidecar of a shard: sums, histograms and names of frames, collected while the shard is written.

`shards.inspection.stats` aggregates sidecars to the statistics of a data set; `shards.inspection.scanning` computes the
same sums from a shard. A sidecar also lists the segments of every example, so that the shard can be rewritten.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from shards.arrays import jpeg as jpeg_pictures
from shards.dataset import duplicates
from shards.dataset.manifest import stats_path
from shards.dataset.packing import Group, Run
from shards.records.pretraining import Example
from shards.storage import filesystem
from shards.storage.errors import UserError

NEAR_BLACK_LEVEL = 16
"""A frame whose mean grey level is below this counts as near-black."""

SILENT_PIXELS = 1.0
"""A spectrogram whose mean pixel is below this counts as silent."""

_RATE_STEP = 10
"""Bin width of the histogram of words per minute."""

_WORST = 3
"""Number of examples of a shard that its sidecar lists for each fault."""


class SidecarError(UserError):
    """A sidecar is missing or does not list the content of its shard; the message names it."""


class Contents(NamedTuple):
    """The content of a shard, from which it can be rewritten."""

    plan: str
    """The digest of the plan."""
    groups: list[Group]
    """The runs of each example."""
    texts: list[list[tuple[str, int]]]
    """Source and number of each text of each example; empty without texts."""
    judged: list[dict[str, Any]]
    """The outcome of every group that the visual filter evaluated."""


def read_contents(folder: str, shard: str) -> Contents:
    """Read the content of `shard` in `folder` from its sidecar. Raises `SidecarError` if it is not listed."""
    path = stats_path(filesystem.join(folder, shard))
    try:
        content = json.loads(filesystem.read_bytes(path))
        groups = [[Run(*run) for run in group] for group in content["runs"]]
        texts = [[(source, number) for source, number in refs] for refs in content.get("texts", [])]
        return Contents(content["plan"], groups, texts, content.get("judged", []))
    except (OSError, ValueError, KeyError, TypeError):
        raise SidecarError(f"the sidecar {path!r} is missing or damaged; restore the file") from None


@dataclass
class Collector:
    """Collects the statistics of one shard while it is written."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    field_bytes: Counter[str] = field(default_factory=Counter)
    tokens_per_segment: Counter[int] = field(default_factory=Counter)
    words_per_minute: Counter[int] = field(default_factory=Counter)
    speeds: Counter[int] = field(default_factory=Counter)
    image_sizes: Counter[str] = field(default_factory=Counter)
    videos_per_example: Counter[int] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, int]] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    text_sources: Counter[str] = field(default_factory=Counter)
    runs: list[list[list[Any]]] = field(default_factory=list)
    texts: list[list[tuple[str, int]]] = field(default_factory=list)
    judged: list[dict[str, Any]] = field(default_factory=list)

    def add(self, group: Group, example: Example, texts: Sequence[tuple[str, int]] = ()) -> None:
        """Count one example of the runs in `group`; `texts` are source and number of its texts, if known."""
        self.runs.append([[run.video_id, run.first, run.stop] for run in group])
        self.texts += [list(texts)] if texts else []
        self.text_sources.update([source for source, _ in texts] or ["not stated"] * len(example.random_text))
        self.counts["examples"] += 1
        self.videos_per_example[len(group)] += 1
        before = self.counts.copy()
        metadata: dict[str, Any] = {}
        for placed in example.segments:
            segment = placed.segment
            metadata = _parse_object(placed.text.meta) if placed.text.meta else metadata
            for category in _strings(metadata.get("categories")):
                self.categories[category] += 1
            self.licences.update(_strings(metadata.get("license")) or ["not stated"])
            words = _words(segment.token_starts, segment.token_ends)
            self.counts["segments"] += 1
            self.counts["tokens"] += len(segment.tokens)
            self.counts["words"] += words
            self.seconds += segment.end - segment.start
            self.tokens_per_segment[len(segment.tokens)] += 1
            rate = 60 * words / max(segment.end - segment.start, 1e-9)
            self.words_per_minute[_RATE_STEP * round(rate / _RATE_STEP)] += 1
            self.speeds[segment.speed] += 1
            self.image_sizes[f"{segment.width}x{segment.height}"] += 1
            self.field_bytes["image"] += len(segment.image)
            self.field_bytes["spectrogram"] += len(segment.spectrogram)
            self.field_bytes["tokens"] += 12 * len(segment.tokens)
            self.counts["silent"] += mean_level(segment.spectrogram) < SILENT_PIXELS
            grey = thumbnail(segment.image)
            self.counts["near_black"] += float(grey.mean()) < NEAR_BLACK_LEVEL
            self.digests.append(duplicates.digest(segment.image))
            self.hashes.append(duplicates.perceptual_hash(grey))
        self.faults.append({name: self.counts[name] - before[name] for name in ("words", "silent", "near_black")})

    def result(self) -> dict[str, Any]:
        """Return JSON-able sums; histograms as sorted lists of [value, count]."""
        return {
            **{name: int(self.counts[name]) for name in COUNTS},
            "seconds": round(self.seconds, 3),
            **{name: sorted(getattr(self, name).items()) for name in HISTOGRAMS},
            "worst": self._worst(),
            "digests": duplicates.encode(self.digests),
            "hashes": duplicates.encode(self.hashes),
            "runs": self.runs,
            "texts": self.texts,
            "judged": self.judged,
        }

    @property
    def groups(self) -> Counter[str]:
        """Number of groups by outcome of the visual filter."""
        return Counter(group["outcome"] for group in self.judged)

    def _worst(self) -> dict[str, list[list[int]]]:
        """Return for each fault the worst examples as [example, count]; for words those with the fewest."""
        worst = {}
        for name, sign in (("words", 1), ("silent", -1), ("near_black", -1)):
            ranked = sorted(range(len(self.faults)), key=lambda i: (sign * self.faults[i][name], i))
            pairs = [[i, int(self.faults[i][name])] for i in ranked[:_WORST]]
            worst[name] = [pair for pair in pairs if name == "words" or pair[1]]
        return worst


COUNTS = ("examples", "segments", "tokens", "words", "silent", "near_black")
HISTOGRAMS = (
    "field_bytes",
    "tokens_per_segment",
    "words_per_minute",
    "speeds",
    "image_sizes",
    "videos_per_example",
    "categories",
    "licences",
    "text_sources",
    "groups",
)
ADDED_LATER = ("words_per_minute", "categories", "licences", "text_sources", "groups")
"""Histograms that sidecars of earlier versions do not have."""


def _parse_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    """Return the strings of a metadata field that may be a string, a list, or anything else."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _words(starts: Float32[np.ndarray, "tokens"], ends: Float32[np.ndarray, "tokens"]) -> int:
    """Return the number of words; all tokens of a word have its times."""
    if not len(starts):
        return 0
    return 1 + int(np.count_nonzero((np.diff(starts) != 0) | (np.diff(ends) != 0)))


def thumbnail(jpeg: bytes) -> UInt8[np.ndarray, "h w"]:
    """Return the grey levels of an image at an eighth of its size. Raises `RecordError` if it is not a JPEG image."""
    height, width = jpeg_pictures.size(jpeg, "picture")
    return np.asarray(jpeg_pictures.reduced(jpeg, "L", (max(width // 8, 1), max(height // 8, 1))))


def mean_level(jpeg: bytes) -> float:
    """Return the mean grey level of an image, in [0, 255], computed at an eighth of its size."""
    return float(thumbnail(jpeg).mean())
