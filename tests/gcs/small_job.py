"""A job that writes one file: `python -m tests.gcs.small_job OUT [flags of Beam]`."""

import os
import sys

import apache_beam as beam

from pipelines.runner import beam_flags
from pipelines.runner.command import run_and_leave
from pipelines.runner.dataflow_job import JobIdentity
from pipelines.runner.execution import new_pipeline, run_to_end
from shards.storage import filesystem


def main():
    out, *flags = sys.argv[1:]
    pipeline = new_pipeline(beam_flags.beam_options(flags), os.devnull, JobIdentity("Train", (out,)))
    _ = pipeline | beam.Create([out]) | beam.Map(filesystem.write_bytes, b"written")
    ended = run_to_end(pipeline, lambda: None)
    sys.stdout.write(f"ended: {ended}\n")
    return 0


if __name__ == "__main__":
    run_and_leave(main)
