"""The command that evaluates: `python -m train.evaluate TASK --data DATA --checkpoint RUN`.

The same weights, data and batch size give the same numbers each time. `pretraining` gives every loss and accuracy on
shards; the other tasks give accuracies on questions, or their leaderboard files.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import ClassVar

import tyro

from model.config import PUBLISHED_NAMES
from shards import command_line
from shards.errors import UsageError, run_command
from shards.reading.cache import CacheOptions


@dataclass(frozen=True)
class Pretraining:
    """Evaluate pretrained weights on shards: losses and the accuracy of every objective."""

    data: str
    """A data folder, or what else the reader takes."""
    checkpoint: str
    """A work folder of train.pretrain, its export, or published weights: base, large, or a path."""
    split: str | None = "val"
    """The split of a data folder."""
    batch_size: int | None = None
    """Examples that are candidates for each other; by default as many as in training."""
    json: bool = False
    """Print JSON instead of tables."""
    cache: tyro.conf.OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    """What of shards in a bucket is kept on this host."""
    reader_workers: int | None = None
    """Processes that read examples, 0 for threads of this one; by default all cores but one, if there are four."""

    def check(self) -> None:
        """Raises `UsageError` for values and paths that cannot be."""
        _check(self)

    def run(self) -> int:
        """Evaluate and print; returns the exit status."""
        from train.evaluation import evaluate_pretraining

        return evaluate_pretraining(self)


@dataclass(frozen=True)
class QuestionEvaluation:
    """Evaluate a finetuned model, or write its leaderboard file."""

    task: ClassVar[str]

    data: str
    """A data folder of prepared questions, or published records."""
    checkpoint: str
    """A work folder of train.finetune, a file in its `best`, or a published name such as vcr_finetune_base."""
    split: str = "val"
    """The split to evaluate."""
    submit: str | None = None
    """Write the leaderboard file into this folder instead."""
    predictions: str | None = None
    """Also write a JSONL of every question's id, scores, right options and credit."""
    batch_size: int = 16
    """Questions of a batch, on all devices together."""
    json: bool = False
    """Print JSON instead of a table."""
    cache: tyro.conf.OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    """What of shards in a bucket is kept on this host."""
    reader_workers: int | None = None
    """Processes that read examples, 0 for threads of this one; by default all cores but one, if there are four."""

    def check(self) -> None:
        """Raises `UsageError` for values and paths that cannot be."""
        _check(self)

    def run(self) -> int:
        """Evaluate and print; returns the exit status."""
        from train.tasks.evaluation import evaluate

        return evaluate(self)


@dataclass(frozen=True)
class Vcr(QuestionEvaluation):
    """Evaluate a model finetuned on VCR (answers, rationales, both), or write its leaderboard file."""

    task = "vcr"


@dataclass(frozen=True)
class Tvqa(QuestionEvaluation):
    """Evaluate a model finetuned on TVQA (beside text, sound, both), or write its leaderboard files."""

    task = "tvqa"


@dataclass(frozen=True)
class Choices(QuestionEvaluation):
    """Evaluate a model finetuned on your own questions."""

    task = "choices"

    def check(self) -> None:
        """Raises `UsageError` also where a leaderboard file is wanted."""
        if self.submit is not None:
            raise UsageError(f"the task {self.task!r} has no leaderboard; leave --submit out")
        super().check()


TASKS = {"pretraining": Pretraining, "vcr": Vcr, "tvqa": Tvqa, "choices": Choices}
"""What the command evaluates, by name."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    cli, config = tyro.extras.subcommand_cli_from_dict, (tyro.conf.OmitArgPrefixes,)
    options = command_line.parse(cli, TASKS, "train.evaluate", argv, names=TASKS, noun="task", config=config)
    options.check()
    return options.run()


def _check(options: Pretraining | QuestionEvaluation) -> None:
    command_line.require_data("--data", options.data)
    command_line.require_checkpoint("--checkpoint", options.checkpoint, PUBLISHED_NAMES)
    command_line.require_not_negative("--reader-workers", options.reader_workers)
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size} must be at least 1")


if __name__ == "__main__":
    sys.exit(run_command(main))
