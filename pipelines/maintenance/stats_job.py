"""Compute the statistics of shards with a Beam job: workers read the shards, the runner sums up the results."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsSingleton
from rich.console import Console

from pipelines.maintenance.options import StatsOptions
from pipelines.preprocessing.assemble_shards import SumFn
from pipelines.runner.beam_types import PCollection
from shards.dataset import location as dataset
from shards.dataset.sums import Sums
from shards.inspection import outliers, scanning, stats, stats_tables
from shards.storage import filesystem

_MAX_PROBLEMS = 100


def run(options: StatsOptions, flags: Sequence[str]) -> int:
    """Print the statistics and return the exit status, 1 if a shard has a problem."""
    opened = dataset.open_data(options.data, options.split)
    with tempfile.TemporaryDirectory() as folder:
        sums, problems = collect(opened.shards, options.scratch or folder, PipelineOptions([*flags]))
    sums.add(stats.items_of(opened, options.split))
    summary, unusual = stats.summary_of(sums, opened.manifest, options.split), outliers.outliers(sums)
    console = Console()
    if options.json:
        lists = {"outliers": [dataclasses.asdict(outlier) for outlier in unusual], "problems": problems}
        console.print_json(json.dumps(dataclasses.asdict(summary) | lists))
    else:
        for table in stats_tables.tables(summary, unusual):
            console.print(table)
        for problem in problems:
            console.print(problem, style="red", highlight=False, soft_wrap=True, markup=False)
    return 1 if problems else 0


def collect(paths: list[str], scratch: str, options: PipelineOptions) -> tuple[Sums, list[str]]:
    """Return the sums of the shards, and a sentence about each unreadable one; both are exchanged in `scratch`."""
    path = filesystem.join(scratch, "sums.json")
    with beam.Pipeline(options=options) as pipeline:
        scanned: PCollection = (
            pipeline
            | "List the shards" >> beam.Create(paths, reshuffle=False)
            | "Distribute the shards" >> beam.Reshuffle()
            | "Read each shard" >> beam.Map(scanning.scan_shard)
        )
        problems = (
            scanned
            | "Keep the problems" >> beam.FlatMap(lambda pair: [pair[1]] if pair[1] else [])
            | "Limit their number" >> beam.combiners.Top.Smallest(_MAX_PROBLEMS)
        )
        _ = (
            scanned
            | "Keep the sums" >> beam.Map(lambda pair: pair[0])
            | "Sum up" >> beam.CombineGlobally(SumFn())
            | "Write the sums" >> beam.Map(_write, AsSingleton(problems), path)
        )
    written = json.loads(filesystem.read_bytes(path))
    filesystem.remove(path)
    return Sums.from_json(written["sums"]), written["problems"]


def _write(sums: Sums, problems: Iterable[str], path: str) -> None:
    content = {"sums": sums.to_json(), "problems": sorted(problems)}
    filesystem.write_bytes(path, json.dumps(content, ensure_ascii=False).encode())
