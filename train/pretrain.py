"""The command that pretrains: `python -m train.pretrain tiny --data DATA --workdir DIR`.

The same command continues an interrupted run; SIGTERM saves a checkpoint first. The resolved configuration is stored in
the work folder, and a run with a different configuration is rejected.
"""

from __future__ import annotations

import sys

import tyro

from model.config import PUBLISHED_NAMES
from shards import command_line
from shards.command_line import run_command
from train.configs import DESCRIPTIONS, PRESETS
from train.distributed.supervisor import supervised
from train.options import PretrainOptions

STORED = ("tokenizer",)
"""Keys of a run's stored configuration that are no options."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parse(argv)
    check(options)

    def work() -> int:
        from train.pretraining import pretrain

        return pretrain(options)

    return supervised(options.processes, work)


def parse(argv: list[str] | None) -> PretrainOptions:
    """Parse a preset's name and changes to it. Raises `UsageError` for invalid values."""
    missing = (tyro.MISSING, tyro.MISSING)
    presets = {name: (DESCRIPTIONS[name], PretrainOptions(*missing, name, config)) for name, config in PRESETS.items()}
    cli = tyro.extras.overridable_config_cli
    return command_line.parse(cli, presets, "train.pretrain", argv, names=PRESETS, noun="preset", stored=STORED)


def check(options: PretrainOptions) -> None:
    """Raise `UsageError` for missing local inputs and invalid values."""
    options.check()
    command_line.require_data("--data", options.data)
    if options.init is not None:
        command_line.require_checkpoint("--init", options.init, PUBLISHED_NAMES)


if __name__ == "__main__":
    sys.exit(run_command(main))
