"""The statistics of shards, each read where a worker is, and added up by the runner."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from pipelines.maintenance.options import StatsOptions
from pipelines.preprocessing.assemble_shards import SumFn
from shards.dataset import location as dataset
from shards.dataset.sums import Sums
from shards.inspection import outliers, scanning, stats, stats_tables
from shards.storage import filesystem

_MOST_PROBLEMS = 100


def run(options: StatsOptions, flags: Sequence[str]) -> int:
    """Print the statistics; the exit status is 1 if a shard has a problem."""
    opened = dataset.open_data(options.data, options.split)
    with tempfile.TemporaryDirectory() as folder:
        found, problems = collect(opened.shards, options.scratch or folder, PipelineOptions([*flags]))
    found.add(stats.items_of(opened, options.split))
    summary, strange = stats.summary_of(found, opened.manifest, options.split), outliers.outliers(found)
    console = Console()
    if options.json:
        lists = {"outliers": [dataclasses.asdict(outlier) for outlier in strange], "problems": problems}
        console.print_json(json.dumps(dataclasses.asdict(summary) | lists))
    else:
        for table in stats_tables.tables(summary, strange):
            console.print(table)
        for problem in problems:
            console.print(problem, style="red", highlight=False, soft_wrap=True, markup=False)
    return 1 if problems else 0


def collect(paths: list[str], scratch: str, options: PipelineOptions) -> tuple[Sums, list[str]]:
    """The sums of the shards, and sentences on those that cannot be read; both pass through the folder `scratch`."""
    place = filesystem.join(scratch, "sums.json")
    with beam.Pipeline(options=options) as pipeline:
        scanned = (
            pipeline
            | "Name the shards" >> beam.Create(paths, reshuffle=False)
            | "Spread them over the workers" >> beam.Reshuffle()
            | "Read each shard" >> beam.Map(scanning.scan_shard)
        )
        problems = (
            scanned
            | "Keep what is wrong" >> beam.FlatMap(lambda pair: [pair[1]] if pair[1] else [])
            | "Some of it" >> beam.combiners.Top.Smallest(_MOST_PROBLEMS)
        )
        _ = (
            scanned
            | "Keep the sums" >> beam.Map(lambda pair: pair[0])
            | "Sum up" >> beam.CombineGlobally(SumFn())
            | "Write the sums" >> beam.Map(_write, beam.pvalue.AsSingleton(problems), place)
        )
    written = json.loads(filesystem.read_bytes(place))
    filesystem.remove(place)
    return Sums.from_json(written["sums"]), written["problems"]


def _write(found: Sums, problems: Iterable[str], place: str) -> None:
    content = {"sums": found.to_json(), "problems": sorted(problems)}
    filesystem.write_bytes(place, json.dumps(content, ensure_ascii=False).encode())
