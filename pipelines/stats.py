"""The statistics of shards read by a Beam job: each shard is summed up where a worker is, and the sums are added here.

    python -m pipelines.stats DATA [--split train] [--json] [--scratch gs://bucket/folder] [Beam's flags]

For data too large for one machine; `python -m shards stats` has the same numbers from the sidecars.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from shards import dataset, filesystem
from shards.errors import UserError, run_command
from shards.inspection import outliers, scanning, stats, stats_tables
from shards.inspection.stats import ShardSums


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


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.stats", description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="a data folder, a shard or a pattern")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--scratch", help="a folder that this machine and all workers see; by default a temporary one")
    parser.add_argument("--runner", default="FnApiRunner", help="Beam's runner; its other flags are taken too")
    known, others = parser.parse_known_args(argv)
    opened = dataset.open_data(known.data, known.split)
    with tempfile.TemporaryDirectory() as folder:
        options = PipelineOptions([f"--runner={known.runner}", *others])
        shards = collect(opened.shards, known.scratch or folder, options)
    summary, found = stats.of_shards(opened, shards, known.split), outliers.outliers(shards)
    problems = [shard.problem for shard in shards if shard.problem]
    console = Console()
    if known.json:
        lists = {"outliers": [dataclasses.asdict(outlier) for outlier in found], "problems": problems}
        console.print_json(json.dumps(dataclasses.asdict(summary) | lists))
    else:
        for table in stats_tables.tables(summary, found):
            console.print(table)
        for problem in problems:
            console.print(problem, style="red", highlight=False, soft_wrap=True, markup=False)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
