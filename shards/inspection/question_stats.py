"""Statistics and checks of question shards, in the format of those of pretraining shards.

A question has no word times, so `words` is 0; `segments` counts images, and `tokens_per_segment` has one entry per
question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.arrays import jpeg
from shards.dataset.sidecar import HISTOGRAMS, NEAR_BLACK_LEVEL, SILENT_PIXELS, mean_level
from shards.records import example
from shards.records.example import Feature
from shards.storage.errors import RecordError


@dataclass
class QuestionSums:
    """Collects the statistics of one shard of questions while it is written."""

    counts: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Counter] = field(default_factory=lambda: {name: Counter() for name in HISTOGRAMS})
    ids: list[str] = field(default_factory=list)

    def add(self, name: str, payload: bytes) -> None:
        """Count one record."""
        self.ids.append(name)
        self.counts["examples"] += 1
        tokens = 0
        for feature, values in example.parse(payload).items():
            if "image" in feature and values:
                self._add_picture("image", values[0])
                height, width = jpeg.size(values[0], "frame")
                self.histograms["image_sizes"][f"{width}x{height}"] += 1
                self.counts["segments"] += 1
                self.counts["near_black"] += mean_level(values[0]) < NEAR_BLACK_LEVEL
            elif feature.endswith("spec_encoded") and values:
                self._add_picture("spectrogram", values[0])
                self.counts["silent"] += mean_level(values[0]) < SILENT_PIXELS
            elif (isinstance(values, np.ndarray) and feature.endswith(("query", "sub"))) or "choice" in feature:
                tokens += len(values)
        self.counts["tokens"] += tokens
        self.histograms["field_bytes"]["tokens"] += 8 * tokens
        self.histograms["tokens_per_segment"][tokens] += 1

    def _add_picture(self, kind: str, content: bytes) -> None:
        self.histograms["field_bytes"][kind] += len(content)

    def result(self) -> dict[str, Any]:
        """Return JSON-able sums; histograms as sorted lists of [value, count]."""
        counts = ("examples", "segments", "tokens", "words", "silent", "near_black")
        return {
            **{name: int(self.counts[name]) for name in counts},
            "seconds": 0.0,
            **{name: sorted(histogram.items()) for name, histogram in self.histograms.items()},
            "runs": [[[name, 0, 1]] for name in self.ids],
        }


def problems(features: Mapping[str, Feature], payload: bytes) -> list[str]:
    """Return the errors of a question's record, as sentences (docs/spec/finetune_data.md 6)."""
    # The compiled kernels take a second to import; statistics do not need them.
    from shards.records import choices, vcr

    try:
        if "qar_query" in features:
            vcr.parse(payload, vcr.VcrConfig())
        else:
            sound = "c00/spec_encoded" in features
            parsed = choices.parse_record(payload, sound=sound)
            config = choices.ClipConfig(options=len(parsed.options), segments=len(parsed.segments), sound=sound)
            choices.parse(payload, config)
    except RecordError as error:
        return [str(error)]
    return []
