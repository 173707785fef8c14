"""The command that pretrains: `python -m train.pretrain tiny --data DATA --workdir DIR`.

The same command continues a run that was interrupted in any way; SIGTERM saves first. What the run is gets settled once
and stored in the work folder, and a folder of another run is refused.
"""

from __future__ import annotations

import sys

import tyro

from model.config import PUBLISHED_NAMES
from shards import command_line
from shards.command_line import run_command
from train.configs import PRESETS
from train.distributed.supervisor import supervised
from train.options import PretrainOptions

STORED = ("tokenizer",)
"""Keys of a run's stored configuration that are no options."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parse(argv)
    check(options)

    def work() -> int:
        from train.pretraining import pretrain

        return pretrain(options)

    return supervised(options.processes, work)


def parse(argv: list[str] | None) -> PretrainOptions:
    """The command line as options: a preset's name, then changes to it. Raises `UsageError` for impossible values."""
    missing = (tyro.MISSING, tyro.MISSING)
    presets = {name: (f"The {name} run.", PretrainOptions(*missing, name, config)) for name, config in PRESETS.items()}
    cli = tyro.extras.overridable_config_cli
    return command_line.parse(cli, presets, "train.pretrain", argv, names=PRESETS, noun="preset", stored=STORED)


def check(options: PretrainOptions) -> None:
    """Raise `UsageError` for inputs on this machine that are not there, and for values that cannot be."""
    options.processes.check()
    command_line.require_data("--data", options.data)
    if options.init is not None:
        command_line.require_checkpoint("--init", options.init, PUBLISHED_NAMES)
    command_line.require_not_negative("--profile", options.profile)
    command_line.require_not_negative("--reader-workers", options.reader_workers)


if __name__ == "__main__":
    sys.exit(run_command(main))
