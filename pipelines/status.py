"""How a job is doing: `python -m pipelines.status DATA`, while it runs or after it."""

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
    """How the videos of a data folder ended so far."""

    data: Annotated[str, tyro.conf.Positional]
    """A data folder, on a disk or in a bucket."""
    json: bool = False
    """Print JSON."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = command_line.parse(tyro.cli, Status, "pipelines.status", argv)
    command_line.require_folder("DATA", options.data)
    from pipelines.preprocessing import status_report

    found = status_report.report(options.data, time.time())
    if options.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
        return 0
    console = Console(highlight=False)
    for table in status_report.tables(found):
        console.print(table)
    if found.retry:
        console.print(f"Retry what failed with a retryable error:\n  {found.retry}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
