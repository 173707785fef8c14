"""The command that finetunes: `python -m train.finetune vcr --data DATA --init base --workdir DIR`.

The same command continues an interrupted run; SIGTERM saves a checkpoint first. After every epoch the split `val`
is evaluated on all hosts, and the best weights are kept beside the checkpoints.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from typing import Any

import tyro

from model.config import PUBLISHED_NAMES
from shards import command_line
from shards.command_line import run_command
from shards.storage.errors import UsageError
from train.config import UNTRAINED
from train.distributed.supervisor import supervised
from train.finetune_config import FinetuneConfig
from train.options import FinetuneOptions
from train.tasks.readers import READERS

STORED = ("tokenizer", "model")
"""Keys of a run's stored configuration that are no options."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parse(argv)
    check(options)
    changes = combinations(options)

    def work() -> int:
        from train.finetuning import start

        return start(options, changes)

    return supervised(options.processes, work)


def parse(argv: list[str] | None) -> FinetuneOptions:
    """Parse a task's name and changes to its configuration.

    Raises `UsageError` for invalid values.
    """
    missing = (tyro.MISSING, tyro.MISSING, tyro.MISSING)
    presets = {
        name: (f"Finetune on {name}.", FinetuneOptions(*missing, name, FinetuneConfig(reader)))
        for name, reader in READERS.items()
    }
    return command_line.parse(
        tyro.extras.overridable_config_cli,
        presets,
        "train.finetune",
        argv,
        names=READERS,
        noun="task",
        stored=("tokenizer", "model"),
    )


def check(options: FinetuneOptions) -> None:
    """Raise `UsageError` for missing local inputs and invalid values."""
    options.check()
    command_line.require_data("--data", options.data)
    command_line.require_checkpoint("--init", options.init, (*PUBLISHED_NAMES, *UNTRAINED))


def combinations(options: FinetuneOptions) -> list[dict[str, Any]]:
    """Return the changes of every run of a sweep. Raises `UsageError` for what cannot be swept over."""
    fields = {f.name: type(getattr(options.config, f.name)) for f in dataclasses.fields(options.config)}
    axes: dict[str, list[Any]] = {}
    for text in options.sweep:
        short, _, values = text.partition("=")
        name = {"lr": "learning_rate"}.get(short, short)
        if fields.get(name) not in (int, float, str):
            raise UsageError(f"--sweep {text!r}: {short!r} is not a number of the configuration; give lr=1e-5,2e-5")
        try:
            axes[name] = [fields[name](value) for value in values.split(",")]
        except ValueError:
            raise UsageError(f"--sweep {text!r}: {values!r} is not a list such as 1e-5,2e-5") from None
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


if __name__ == "__main__":
    sys.exit(run_command(main))
