"""Compute the statistics of shards with a Beam job, whose workers read the shards.

    python -m pipelines.stats DATA [--split train] [--json] [--scratch gs://bucket/folder] [Beam's flags]

Use it for data too large for one machine; `python -m shards stats` computes the same numbers from the sidecars.
"""

from __future__ import annotations

import sys

import tyro

from pipelines.maintenance.options import StatsOptions
from pipelines.runner import beam_flags
from shards import command_line
from shards.command_line import run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options, flags = command_line.parse(tyro.cli, StatsOptions, "pipelines.stats", argv, foreign=beam_flags.FLAGS)
    beam_flags.check(flags)
    command_line.require_data("DATA", options.data)
    from pipelines.maintenance.stats_job import run

    # Without --runner, the shards are read in this process.
    return run(options, [f"--runner={beam_flags.runner(flags)}", *flags])


if __name__ == "__main__":
    sys.exit(run_command(main))
