"""The command that pretrains: `python -m train.pretrain tiny --data DATA --workdir DIR`.

The same command continues a run that was interrupted in any way; SIGTERM saves first. What the run is gets settled once
and stored in the work folder, and a folder of another run is refused.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from model.config import PUBLISHED_NAMES
from shards import command_line
from shards.errors import run_command
from shards.reading.cache import CacheOptions
from train.config import PRESETS, TrainConfig
from train.processes import Hosts
from train.supervisor import supervised


@dataclass(frozen=True)
class Pretrain:
    """Pretrain a model on shards, or continue where the run in the work folder stopped."""

    data: str
    """A data folder, or what else the reader takes."""
    workdir: str
    """Where checkpoints, metrics and the exported weights go."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    init: str | None = None
    """Start from these weights: base, large, or the path of an exported checkpoint."""
    replace_config: bool = False
    """Go on with the checkpoints of the work folder although the run was another one."""
    profile: int = 0
    """Write a profile of so many steps into the work folder."""
    cache: tyro.conf.OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    """What of shards in a bucket is kept on this host."""
    reader_workers: int | None = None
    """Processes that read examples, 0 for threads of this one; by default all cores but one, if there are four."""
    processes: tyro.conf.OmitArgPrefixes[Hosts] = field(default_factory=Hosts)
    """The other processes of a run on several hosts."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parse(argv)
    check(options)

    def work() -> int:
        from train.pretraining import pretrain

        return pretrain(options)

    return supervised(options.processes, work)


def parse(argv: list[str] | None) -> Pretrain:
    """The command line as options: a preset's name, then changes to it. Raises `UsageError` for impossible values."""
    presets = {
        name: (f"The {name} run.", Pretrain(tyro.MISSING, tyro.MISSING, config)) for name, config in PRESETS.items()
    }
    cli = tyro.extras.overridable_config_cli
    return command_line.parse(cli, presets, "train.pretrain", argv, names=PRESETS, noun="preset")


def check(options: Pretrain) -> None:
    """Raise `UsageError` for inputs on this machine that are not there, and for values that cannot be."""
    options.processes.check()
    command_line.require_data("--data", options.data)
    if options.init is not None:
        command_line.require_checkpoint("--init", options.init, PUBLISHED_NAMES)
    command_line.require_not_negative("--profile", options.profile)
    command_line.require_not_negative("--reader-workers", options.reader_workers)


if __name__ == "__main__":
    sys.exit(run_command(main))
