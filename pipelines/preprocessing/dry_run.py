"""Estimate the cost of a whole job by processing a sample of its videos.

Nothing is written to the data folder. The sample's filter funnel and cost per video determine compute and download
time, storage, requests, shuffle and disk for any number of videos, and their prices if known.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from apache_beam.pvalue import TaggedOutput
from rich.console import Console
from rich.table import Table

from ingest.raw import RawVideo
from pipelines.extraction.decoding import Extractor
from pipelines.preprocessing.cost import Cost, Estimate, start_core_hours
from pipelines.preprocessing.fetch_videos import Fetch
from pipelines.preprocessing.graph import extraction_of
from pipelines.preprocessing.listing import ListedVideo, Source, list_of
from shards.inspection.plain_table import PlainTable
from shards.storage import filesystem
from shards.storage.randomness import digest

if TYPE_CHECKING:
    from pipelines.preprocessing.options import PreprocessOptions

SAMPLE_VIDEOS = 16
_CORES = (16, 256, 4096)
_ADDRESSES = (1, 16, 256)


def report(options: PreprocessOptions, console: Console) -> int:
    """Process a sample of the list, print its funnel and the estimated costs, and return the exit status."""
    listed, sample = sampled(list_of(options).read(), options.video.seed)
    outcomes, cost = measure(sample, options)
    funnel = PlainTable("outcome", "videos", title=f"a sample of {len(sample)} of {listed} videos")
    for (kind, outcome), count in sorted(outcomes.items()):
        funnel.add_row(f"{kind}: {outcome}", str(count))
    console.print(funnel)
    estimates = [cost.for_videos(count, options.prices) for count in sorted({listed, 1_000_000, 20_000_000})]
    console.print(costs_table(estimates, options.politeness.downloads_per_day))
    if options.prices.save_cost is not None:
        estimate = dataclasses.asdict(cost.for_videos(listed, options.prices))
        estimate["sample"] = dataclasses.asdict(cost)
        filesystem.write_bytes(options.prices.save_cost, (json.dumps(estimate, indent=1) + "\n").encode())
    return 0


def costs_table(estimates: list[Estimate], per_day: int | None) -> Table:
    """Return a table with a column per estimate; `per_day` is the limit of downloads from each address, if any."""
    table = PlainTable("", *(f"{e.videos:,} videos" for e in estimates), title="cost at this rate")

    def add(label: str, *values: str) -> None:
        table.add_row(label, *values)

    add("core-hours", *(f"{e.core_hours:,.2f}" for e in estimates))
    add("hours of waiting for downloads, one after another", *(f"{e.download_hours:,.2f}" for e in estimates))
    add(f"hours on {_listed(_CORES)} cores", *(_joined(e.hours(cores) for cores in _CORES) for e in estimates))
    starts = _joined(start_core_hours(cores) for cores in _CORES)
    add("core-hours of these for machine start", *(starts for _ in estimates))
    if per_day is not None:
        label = f"days at {per_day:,} downloads per day from {_listed(_ADDRESSES)} addresses"
        add(label, *(_joined(e.days_of_downloads(per_day, n) for n in _ADDRESSES) for e in estimates))
    add("GB of shards", *(f"{e.gigabytes:,.2f}" for e in estimates))
    add("writes in the bucket", *(f"{e.writes:,.0f}" for e in estimates))
    add("reads in the bucket", *(f"{e.reads:,.0f}" for e in estimates))
    add("GB of shuffle", *(f"{e.shuffle_gigabytes:,.2f}" for e in estimates))
    add("GB of disk per worker", *(f"{e.disk_gigabytes:,.1f}" for e in estimates))
    prices = {
        "compute": "compute_price",
        "storage per month": "storage_price_a_month",
        "requests": "operations_price",
        "shuffle": "shuffle_price",
        "disks": "disk_price",
    }
    for label, name in prices.items():
        values = [getattr(estimate, name) for estimate in estimates]
        add(f"price of {label}", *("-" if price is None else f"{price:,.2f}" for price in values))
    return table


def _listed(numbers: tuple[int, ...]) -> str:
    return " / ".join(map(str, numbers))


def _joined(values: Iterable[float]) -> str:
    return " / ".join(f"{value:,.1f}" for value in values)


def sampled(videos: Iterable[ListedVideo], seed: int) -> tuple[int, list[ListedVideo]]:
    """Return the number of listed videos, including repeated ones, and those with the smallest hashes of their ids."""
    count = 0
    smallest: dict[str, tuple[bytes, str, ListedVideo]] = {}
    for video in videos:
        count += 1
        smallest[video.id] = (digest(seed, "sample", video.id), video.id, video)
        if len(smallest) > 64 * SAMPLE_VIDEOS:
            smallest = {entry[1]: entry for entry in _smallest(smallest.values())}
    return count, [video for _, _, video in _smallest(smallest.values())]


def _smallest(entries: Iterable[tuple[bytes, str, ListedVideo]]) -> list[tuple[bytes, str, ListedVideo]]:
    return heapq.nsmallest(SAMPLE_VIDEOS, entries, key=lambda entry: entry[:2])


def measure(sample: list[ListedVideo], options: PreprocessOptions) -> tuple[Counter[tuple[str, str]], Cost]:
    """Process the sample and return its outcomes by (kind, name), and its cost."""
    outcomes: Counter[tuple[str, str]] = Counter()
    cpu, waited, size, segments, largest, tried = 0.0, 0.0, 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        # Nothing is written to the data folder.
        fetch = Fetch(dataclasses.replace(extraction_of(options, ""), out=scratch, config=options.video))
        fetch.setup()
        extractor = Extractor(options.video, options.limits)
        try:
            for video in sample:
                start = time.monotonic()
                (fetched,) = fetch.process((video, False))
                if isinstance(fetched, TaggedOutput):
                    outcomes[fetched.tag, fetched.value] += 1
                    continue
                element = fetched.video
                tried += 1
                waited += time.monotonic() - start if video.source is Source.YOUTUBE else 0.0
                if isinstance(element, RawVideo) and element.media:
                    largest = max(largest, Path(element.media).stat().st_size)
                extracted = extractor(element) if isinstance(element, RawVideo) else element
                outcome = extracted.result.outcome
                outcomes[outcome.kind.value, outcome.value] += 1
                cpu += extracted.cpu_seconds
                segments += len(extracted.result.segments)
                size += sum(len(s.image) + len(s.spectrogram) + 12 * len(s.tokens) for s in extracted.result.segments)
        finally:
            extractor.close()
            fetch.teardown()
    return outcomes, Cost(tried, cpu, size, segments / options.segments_per_example, round(waited, 3), largest)
