"""The command that evaluates: `python -m train.evaluate TASK --data DATA --checkpoint RUN`.

The same weights, data and batch size give the same numbers each time. `pretraining` gives every loss and accuracy on
shards; the other tasks give accuracies on questions, or their leaderboard files.
"""

from __future__ import annotations

import sys

import tyro

from shards import command_line
from shards.command_line import run_command
from train.options import Choices, PretrainingEvaluation, Tvqa, Vcr

TASKS = {"pretraining": PretrainingEvaluation, "vcr": Vcr, "tvqa": Tvqa, "choices": Choices}
"""What the command evaluates, by name."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    cli, config = tyro.extras.subcommand_cli_from_dict, (tyro.conf.OmitArgPrefixes,)
    options = command_line.parse(cli, TASKS, "train.evaluate", argv, names=TASKS, noun="task", config=config)
    options.check()
    if isinstance(options, PretrainingEvaluation):
        from train.evaluation import evaluate_pretraining

        return evaluate_pretraining(options)
    from train.tasks.evaluation import evaluate

    return evaluate(options)


if __name__ == "__main__":
    sys.exit(run_command(main))
