"""What the sidecar of a shard says: sums, histograms and the names of frames, added up while the shard is written.

`shards.inspection.stats` adds sidecars up to the statistics of a data set, `shards.inspection.scanning` makes the same
sums from a shard.
What a shard was made of stands there too, so that it can be written again.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

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
"""Words per minute are counted in steps of so many."""

_WORST = 3
"""Examples of a shard that its sidecar names for each fault."""


class SidecarError(UserError):
    """A sidecar does not say what its shard was made of."""


class Contents(NamedTuple):
    """What a shard was made of: the plan it belongs to, the runs of each example, source and number of each of its
    texts (no lists at all without texts), and how every group fared that the visual filter looked at."""

    plan: str
    groups: list[Group]
    texts: list[list[tuple[str, int]]]
    judged: list[dict[str, Any]]


def read_contents(folder: str, shard: str) -> Contents:
    """What the sidecar of `shard` in `folder` says it was made of. Raises `SidecarError` if it does not say."""
    path = stats_path(filesystem.join(folder, shard))
    try:
        held = json.loads(filesystem.read_bytes(path))
        groups = [[Run(*run) for run in group] for group in held["runs"]]
        texts = [[(source, number) for source, number in refs] for refs in held.get("texts", [])]
        return Contents(held["plan"], groups, texts, held.get("judged", []))
    except (OSError, ValueError, KeyError, TypeError):
        raise SidecarError(f"{path} does not say what {shard} was made of; restore that file first") from None


@dataclass
class Collector:
    """Adds up one shard while it is written."""

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

    def add(self, group: Group, example: Example, texts: list[tuple[str, int]] = ()) -> None:
        """Count one example, made of the runs in `group`; `texts` say source and number of its texts, if known."""
        self.runs.append([[run.video_id, run.first, run.stop] for run in group])
        self.texts += [texts] if texts else []
        self.text_sources.update([source for source, _ in texts] or ["not stated"] * len(example.random_text))
        self.counts["examples"] += 1
        self.videos_per_example[len(group)] += 1
        before = self.counts.copy()
        about: dict[str, Any] = {}
        for placed in example.segments:
            segment = placed.segment
            about = _about(placed.text.meta) if placed.text.meta else about
            for category in _strings(about.get("categories")):
                self.categories[category] += 1
            self.licences.update(_strings(about.get("license")) or ["not stated"])
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
        """JSON-able sums; histograms as sorted lists of [value, count]."""
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
        """How the groups that were looked at ended."""
        return Counter(group["outcome"] for group in self.judged)

    def _worst(self) -> dict[str, list[list[int]]]:
        """For each fault the examples that have most of it as [example, count]; for words those with fewest."""
        worst = {}
        for name, sign in (("words", 1), ("silent", -1), ("near_black", -1)):
            ranked = sorted(range(len(self.faults)), key=lambda i: (sign * self.faults[i][name], i))
            found = [[i, int(self.faults[i][name])] for i in ranked[:_WORST]]
            worst[name] = [pair for pair in found if name == "words" or pair[1]]
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
"""Histograms that sidecars of earlier versions lack."""


def _about(meta: str) -> dict[str, Any]:
    try:
        held = json.loads(meta)
    except (ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _strings(value: object) -> list[str]:
    """Texts of a metadata field that may be a text, a list of texts, or anything."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _words(starts: np.ndarray, ends: np.ndarray) -> int:
    """Tokens of one word share its times."""
    if not len(starts):
        return 0
    return 1 + int(np.count_nonzero((np.diff(starts) != 0) | (np.diff(ends) != 0)))


def thumbnail(jpeg: bytes) -> np.ndarray:
    """A picture's grey levels at an eighth of its size: `uint8 [h, w]`. Raises `RecordError` if it is none."""
    height, width = jpeg_pictures.size(jpeg, "picture")
    return np.asarray(jpeg_pictures.reduced(jpeg, "L", (max(width // 8, 1), max(height // 8, 1))))


def mean_level(jpeg: bytes) -> float:
    """The mean grey level of a picture, from 0 to 255, taken at an eighth of its size."""
    return float(thumbnail(jpeg).mean())
