"""The statistics of shards read by a Beam job: each shard is summed up where a worker is, and the sums are added here.

    python -m pipelines.stats DATA [--split train] [--json] [--scratch gs://bucket/folder] [Beam's flags]

For data too large for one machine; `python -m shards stats` has the same numbers from the sidecars.
"""

from __future__ import annotations

import sys

import tyro

from pipelines.maintenance.options import StatsOptions
from pipelines.runner import beam_flags
from shards import command_line
from shards.command_line import run_command


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, flags = command_line.parse(tyro.cli, StatsOptions, "pipelines.stats", argv, foreign=beam_flags.FLAGS)
    beam_flags.check(flags)
    command_line.require_data("DATA", options.data)
    from pipelines.maintenance.stats_job import run

    # Its shards are read in this process unless a runner is named.
    return run(options, [f"--runner={beam_flags.runner(flags)}", *flags])


if __name__ == "__main__":
    sys.exit(run_command(main))
