"""What the whole job will cost, from a sample that is really processed.

Nothing is kept. The sample's funnel and its cost per video give core-hours, storage, hours for any number of workers,
and money where the prices are known.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ingest.raw import RawVideo
from pipelines.cost import Cost
from pipelines.extraction import Extractor
from pipelines.preprocessing.extract_videos import Fetch, Fetched
from pipelines.preprocessing.graph import extraction_of
from pipelines.preprocessing.listing import ListedVideo, list_of
from shards import filesystem
from shards.randomness import digest

if TYPE_CHECKING:
    from pipelines.options import PreprocessOptions

SAMPLE_VIDEOS = 16


def report(options: PreprocessOptions, console: Console) -> int:
    """Process a sample of the list, print the funnel and the cost of all videos; returns the exit status."""
    listed, sample = sampled(list_of(options).read(), options.video.seed)
    outcomes, cost = measure(sample, options)
    funnel = Table("outcome", "videos", title=f"a sample of {len(sample)} of {listed} videos")
    for (kind, outcome), count in sorted(outcomes.items()):
        funnel.add_row(f"{kind}: {outcome}", str(count))
    console.print(funnel)
    columns = ("videos", "core-hours", "GB of shards", "hours on 16 / 256 / 4096 cores", "compute", "storage a month")
    costs = Table(*columns, title="cost at this rate")
    for count in sorted({listed, 1_000_000, 20_000_000}):
        found = cost.for_videos(count, options.prices)
        hours = " / ".join(f"{found.core_hours / workers:,.1f}" for workers in (16, 256, 4096))
        prices = ("-" if p is None else f"{p:,.2f}" for p in (found.compute_price, found.storage_price_a_month))
        costs.add_row(f"{count:,}", f"{found.core_hours:,.2f}", f"{found.gigabytes:,.2f}", hours, *prices)
    console.print(costs)
    if options.prices.save_cost is not None:
        estimate = dataclasses.asdict(cost.for_videos(listed, options.prices))
        estimate["sample"] = dataclasses.asdict(cost)
        filesystem.write_bytes(options.prices.save_cost, (json.dumps(estimate, indent=1) + "\n").encode())
    return 0


def sampled(videos: Iterable[ListedVideo], seed: int) -> tuple[int, list[ListedVideo]]:
    """How many videos are listed, repeated ones too, and those with the smallest hashes of their ids."""
    counted = itertools.count()
    named = ((digest(seed, "sample", video.id), video.id, video) for video, _ in zip(videos, counted, strict=False))
    smallest: dict[str, tuple[bytes, str, ListedVideo]] = {}
    for entry in named:
        smallest[entry[1]] = entry
        if len(smallest) > 64 * SAMPLE_VIDEOS:
            smallest = {kept[1]: kept for kept in _smallest(smallest.values())}
    return next(counted), [video for _, _, video in _smallest(smallest.values())]


def _smallest(entries: Iterable[tuple[bytes, str, ListedVideo]]) -> list[tuple[bytes, str, ListedVideo]]:
    return heapq.nsmallest(SAMPLE_VIDEOS, entries, key=lambda entry: entry[:2])


def measure(sample: list[ListedVideo], options: PreprocessOptions) -> tuple[Counter[tuple[str, str]], Cost]:
    """Outcomes by (kind, name), and the cost, of really processing the sample."""
    outcomes: Counter[tuple[str, str]] = Counter()
    cpu, size = 0.0, 0
    with tempfile.TemporaryDirectory() as scratch:
        # Nothing is written to the data folder.
        fetch = Fetch(dataclasses.replace(extraction_of(options, ""), out=scratch, config=options.video))
        fetch.setup()
        extractor = Extractor(options.video, options.limits)
        try:
            for video in sample:
                for element in fetch.process((video, False)):
                    if not isinstance(element, Fetched):
                        continue
                    raw = element.video
                    extracted = extractor(raw) if isinstance(raw, RawVideo) else raw
                    outcome = extracted.result.outcome
                    outcomes[outcome.kind.value, outcome.value] += 1
                    cpu += extracted.cpu_seconds
                    segments = extracted.result.segments
                    size += sum(len(s.image) + len(s.spectrogram) + 12 * len(s.tokens) for s in segments)
        finally:
            extractor.close()
    return outcomes, Cost(len(sample), cpu, size)
