"""The sums of shards, read by a Beam job where a worker is and added here."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from shards import dataset, filesystem
from shards.errors import UserError
from shards.inspection import outliers, scanning, stats, stats_tables
from shards.inspection.stats import ShardSums

if TYPE_CHECKING:
    from pipelines.stats import Stats


def run(options: Stats, flags: Sequence[str]) -> int:
    """Print the statistics; the exit status is 1 if a shard has a problem."""
    opened = dataset.open_data(options.data, options.split)
    with tempfile.TemporaryDirectory() as folder:
        shards = collect(opened.shards, options.scratch or folder, PipelineOptions([*flags]))
    summary, found = stats.of_shards(opened, shards, options.split), outliers.outliers(shards)
    problems = [shard.problem for shard in shards if shard.problem]
    console = Console()
    if options.json:
        lists = {"outliers": [dataclasses.asdict(outlier) for outlier in found], "problems": problems}
        console.print_json(json.dumps(dataclasses.asdict(summary) | lists))
    else:
        for table in stats_tables.tables(summary, found):
            console.print(table)
        for problem in problems:
            console.print(problem, style="red", highlight=False, soft_wrap=True, markup=False)
    return 1 if problems else 0


def collect(paths: list[str], scratch: str, options: PipelineOptions) -> list[ShardSums]:
    """The sums of the shards, in order; workers leave them as lines in the folder `scratch`, which ends empty.

    Raises `UserError` if the job ends without having seen every shard.
    """
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Name the shards" >> beam.Create(paths, reshuffle=False)
            | "Spread them over the workers" >> beam.Reshuffle()
            | "Sum each up" >> beam.Map(lambda path: json.dumps([path, *scanning.read_sidecar(path)]))
            | "Write the sums" >> beam.io.WriteToText(filesystem.join(scratch, "sums"), file_name_suffix=".jsonl")
        )
    found: dict[str, ShardSums] = {}
    for part in filesystem.list_files(scratch, ".jsonl"):
        for line in filesystem.read_bytes(part).splitlines():
            path, size, content, problem = json.loads(line)
            found[path] = scanning.sums_of(path, size, content, problem)
        filesystem.remove(part)
    if missing := [path for path in paths if path not in found]:
        raise UserError(f"the job ended without the sums of {len(missing)} shards, the first is {missing[0]!r}")
    return [found[path] for path in paths]
