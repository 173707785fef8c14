"""What the whole job will cost, from a sample that is really processed.

Nothing is kept. The sample's funnel and its cost per video give core-hours, storage, hours for any number of workers,
and money where the prices are known.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ingest.raw import RawVideo
from pipelines.cost import Cost
from pipelines.extraction import Extractor
from pipelines.transforms import Fetch, Item
from shards import filesystem
from shards.randomness import digest

if TYPE_CHECKING:
    from pipelines.options import PreprocessOptions

SAMPLE_VIDEOS = 16


def report(items: list[Item], options: PreprocessOptions, console: Console) -> int:
    """Process a sample, print the funnel and the cost of all items; returns the exit status."""
    sample = sorted(items, key=lambda item: digest(options.video.seed, "sample", item.id))[:SAMPLE_VIDEOS]
    outcomes, cost = measure(sample, options)
    funnel = Table("outcome", "videos", title=f"a sample of {len(sample)} of {len(items)} videos")
    for (kind, outcome), count in sorted(outcomes.items()):
        funnel.add_row(f"{kind}: {outcome}", str(count))
    console.print(funnel)
    columns = ("videos", "core-hours", "GB of shards", "hours on 16 / 256 / 4096 cores", "compute", "storage a month")
    costs = Table(*columns, title="cost at this rate")
    for count in sorted({len(items), 1_000_000, 20_000_000}):
        found = cost.for_videos(count, options.prices)
        hours = " / ".join(f"{found.core_hours / workers:,.1f}" for workers in (16, 256, 4096))
        prices = ("-" if p is None else f"{p:,.2f}" for p in (found.compute_price, found.storage_price_a_month))
        costs.add_row(f"{count:,}", f"{found.core_hours:,.2f}", f"{found.gigabytes:,.2f}", hours, *prices)
    console.print(costs)
    if options.prices.save_cost is not None:
        estimate = dataclasses.asdict(cost.for_videos(len(items), options.prices))
        estimate["sample"] = dataclasses.asdict(cost)
        filesystem.write_bytes(options.prices.save_cost, (json.dumps(estimate, indent=1) + "\n").encode())
    return 0


def measure(sample: list[Item], options: PreprocessOptions) -> tuple[Counter[tuple[str, str]], Cost]:
    """Outcomes by (kind, name), and the cost, of really processing the sample."""
    outcomes: Counter[tuple[str, str]] = Counter()
    cpu, size = 0.0, 0
    with tempfile.TemporaryDirectory() as scratch:
        fetch = Fetch(options.video, options.download, scratch, options.politeness, uuid.uuid4().hex)
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
