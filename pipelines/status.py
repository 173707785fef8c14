"""Print the status of a preprocessing job, while it runs or afterwards.

python -m pipelines.status DATA
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from shards import command_line
from shards.command_line import run_command


@dataclass(frozen=True)
class Status:
    """Print the status of a preprocessing job: the outcomes of its videos so far."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """The data folder of the job, on a disk or in a bucket."""
    json: bool = False
    """Print the status as JSON."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = command_line.parse(tyro.cli, Status, "pipelines.status", argv)
    command_line.require_folder("DATA", options.data)
    from pipelines.preprocessing import status_report

    report = status_report.report(options.data, time.time())
    if options.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
        return 0
    console = Console(highlight=False)
    for table in status_report.tables(report):
        console.print(table)
    if report.retry:
        console.print(
            f"Retry videos that failed with a retryable error:\n  {report.retry}", soft_wrap=True, markup=False
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
