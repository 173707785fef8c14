"""What the whole job will cost, from a sample that is really processed.

Nothing is kept. The sample's funnel and its cost per second of video give core-hours, storage and hours for any number
of workers.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ingest.raw import RawVideo
from pipelines.extraction import Extractor
from pipelines.transforms import Fetch, Item
from shards.randomness import digest

if TYPE_CHECKING:
    from pipelines.options import PreprocessOptions

SAMPLE_VIDEOS = 16


@dataclass(frozen=True)
class Cost:
    """The cost of a sample: videos, seconds of CPU, bytes of segments."""

    videos: int
    cpu_seconds: float
    segment_bytes: int

    def for_videos(self, count: int) -> tuple[float, float]:
        """(core-hours, gigabytes of shards) of `count` videos like those of the sample."""
        share = count / max(self.videos, 1)
        return self.cpu_seconds * share / 3600, self.segment_bytes * share / 1e9


def report(items: list[Item], options: PreprocessOptions, console: Console) -> int:
    """Process a sample, print the funnel and the cost of all items; returns the exit status."""
    sample = sorted(items, key=lambda item: digest(options.video.seed, "sample", item.id))[:SAMPLE_VIDEOS]
    outcomes, cost = measure(sample, options)
    funnel = Table("outcome", "videos", title=f"a sample of {len(sample)} of {len(items)} videos")
    for (kind, outcome), count in sorted(outcomes.items()):
        funnel.add_row(f"{kind}: {outcome}", str(count))
    console.print(funnel)
    costs = Table("videos", "core-hours", "GB of shards", "hours on 16 / 256 / 4096 cores", title="cost at this rate")
    for count in sorted({len(items), 1_000_000, 20_000_000}):
        core_hours, gigabytes = cost.for_videos(count)
        hours = " / ".join(f"{core_hours / workers:,.1f}" for workers in (16, 256, 4096))
        costs.add_row(f"{count:,}", f"{core_hours:,.2f}", f"{gigabytes:,.2f}", hours)
    console.print(costs)
    return 0


def measure(sample: list[Item], options: PreprocessOptions) -> tuple[Counter[tuple[str, str]], Cost]:
    """Outcomes by (kind, name), and the cost, of really processing the sample."""
    outcomes: Counter[tuple[str, str]] = Counter()
    cpu, size = 0.0, 0
    with tempfile.TemporaryDirectory() as scratch:
        fetch = Fetch(options.video, options.download, scratch, options.politeness)
        fetch.setup()
        extractor = Extractor(options.video, options.limits)
        try:
            for item in sample:
                for element in fetch.process(item):
                    extracted = extractor(element) if isinstance(element, RawVideo) else element
                    outcome = extracted.result.outcome
                    outcomes[outcome.kind.value, outcome.value] += 1
                    cpu += extracted.cpu_seconds
                    segments = extracted.result.segments
                    size += sum(len(s.image) + len(s.spectrogram) + 12 * len(s.tokens) for s in segments)
        finally:
            extractor.close()
    return outcomes, Cost(len(sample), cpu, size)
