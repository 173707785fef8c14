"""Statistics of a data set, from the sidecars written with every shard.

A sidecar holds sums and histograms only, so the statistics of any number of shards are sums of small files and no shard
is opened.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from shards import filesystem
from shards.manifest import Manifest, ManifestError, stats_path
from shards.packing import Group
from shards.records.pretraining import Example

NEAR_BLACK_LEVEL = 16
"""A frame whose mean grey level is below this counts as near-black."""

SILENT_PIXELS = 1.0
"""A spectrogram whose mean pixel is below this counts as silent."""


@dataclass
class Collector:
    """Adds up one shard while it is written."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    field_bytes: Counter[str] = field(default_factory=Counter)
    tokens_per_segment: Counter[int] = field(default_factory=Counter)
    speeds: Counter[int] = field(default_factory=Counter)
    image_sizes: Counter[str] = field(default_factory=Counter)
    videos_per_example: Counter[int] = field(default_factory=Counter)
    runs: list[list[list[Any]]] = field(default_factory=list)

    def add(self, group: Group, example: Example) -> None:
        """Count one example, made of the runs in `group`."""
        self.runs.append([[run.video_id, run.first, run.stop] for run in group])
        self.counts["examples"] += 1
        self.videos_per_example[len(group)] += 1
        for placed in example.segments:
            segment = placed.segment
            self.counts["segments"] += 1
            self.counts["tokens"] += len(segment.tokens)
            self.counts["words"] += _words(segment.token_starts, segment.token_ends)
            self.seconds += segment.end - segment.start
            self.tokens_per_segment[len(segment.tokens)] += 1
            self.speeds[segment.speed] += 1
            self.image_sizes[f"{segment.width}x{segment.height}"] += 1
            self.field_bytes["image"] += len(segment.image)
            self.field_bytes["spectrogram"] += len(segment.spectrogram)
            self.field_bytes["tokens"] += 12 * len(segment.tokens)
            self.counts["silent"] += mean_level(segment.spectrogram) < SILENT_PIXELS
            self.counts["near_black"] += mean_level(segment.image) < NEAR_BLACK_LEVEL

    def result(self) -> dict[str, Any]:
        """JSON-able sums; histograms as sorted lists of [value, count]."""
        return {
            **{name: self.counts[name] for name in COUNTS},
            "seconds": round(self.seconds, 3),
            **{name: sorted(getattr(self, name).items()) for name in HISTOGRAMS},
            "runs": self.runs,
        }


COUNTS = ("examples", "segments", "tokens", "words", "silent", "near_black")
HISTOGRAMS = ("field_bytes", "tokens_per_segment", "speeds", "image_sizes", "videos_per_example")


def _words(starts: np.ndarray, ends: np.ndarray) -> int:
    """Tokens of one word share its times."""
    if not len(starts):
        return 0
    return 1 + int(np.count_nonzero((np.diff(starts) != 0) | (np.diff(ends) != 0)))


def mean_level(jpeg: bytes) -> float:
    """The mean grey level of a picture, from 0 to 255, taken at an eighth of its size."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft("L", (max(image.width // 8, 1), max(image.height // 8, 1)))
    return float(np.asarray(image.convert("L")).mean())


@dataclass(frozen=True)
class Summary:
    """A data set in numbers; histograms map a value to how many segments (or examples, bytes) have it."""

    shards: int
    bytes: int
    videos: int
    counts: dict[str, int]
    seconds: float
    histograms: dict[str, dict[str, int]]

    def percentile(self, histogram: str, share: float) -> float:
        """The smallest value that at least `share` of the entries do not exceed."""
        items = sorted((float(v), n) for v, n in self.histograms[histogram].items())
        total, seen = sum(n for _, n in items), 0
        for value, count in items:
            seen += count
            if seen >= share * total:
                return value
        return 0.0


def summarize(data: str, manifest: Manifest, split: str | None = None) -> Summary:
    """Statistics of a data set from its sidecars. Raises `ManifestError` naming a bad sidecar."""
    counts: Counter[str] = Counter()
    histograms: dict[str, Counter[str]] = {name: Counter() for name in HISTOGRAMS}
    videos: set[str] = set()
    seconds = 0.0
    shards = manifest.shards(split)
    for shard in shards:
        path = stats_path(filesystem.join(data, shard.name))
        try:
            sidecar = json.loads(filesystem.read_bytes(path))
            counts.update({name: sidecar[name] for name in COUNTS})
            seconds += sidecar["seconds"]
            for name in HISTOGRAMS:
                histograms[name].update({str(value): n for value, n in sidecar[name]})
            videos.update(run[0] for group in sidecar["runs"] for run in group)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ManifestError(f"the sidecar {path!r} is damaged ({type(error).__name__}); repair it") from None
    return Summary(
        len(shards),
        sum(s.bytes for s in shards),
        len(videos),
        {name: counts[name] for name in COUNTS},
        seconds,
        {name: dict(h) for name, h in histograms.items()},
    )
