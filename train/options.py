"""The options of the training commands; imports nothing that computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import tyro

from model.config import PUBLISHED_NAMES
from shards import command_line
from shards.reading.cache import CacheOptions
from shards.storage.errors import UsageError
from train.config import TrainConfig
from train.distributed.processes import Hosts
from train.finetune_config import FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How examples are read on this host."""

    cache: tyro.conf.OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    """Cache of remote shards on this host."""
    reader_workers: int | None = None
    """Processes that read examples, 0 for threads; by default all cores but one on machines of four or more."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(ReadingOptions):
    """What the commands that train share."""

    profile: int = 0
    """Number of steps to profile into the work folder."""
    processes: tyro.conf.OmitArgPrefixes[Hosts] = field(default_factory=Hosts)
    """The other processes of a run on several hosts."""

    def check(self) -> None:
        """Raise `UsageError` for invalid values."""
        self.processes.check()
        command_line.require_not_negative("--profile", self.profile)
        command_line.require_not_negative("--reader-workers", self.reader_workers)


@dataclass(frozen=True)
class PretrainOptions(RunOptions):
    """Pretrain a model on shards, or continue where the run in the work folder stopped."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """A data folder, a manifest, a shard or a pattern."""
    workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Where checkpoints, metrics and the exported weights go."""
    preset: tyro.conf.Suppress[str]
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    init: Annotated[str | None, tyro.conf.arg(metavar="WEIGHTS")] = None
    """Start from these weights: base, large, or the path of an exported checkpoint."""
    replace_config: bool = False
    """Continue from the checkpoints of the work folder although its configuration differs."""


@dataclass(frozen=True)
class FinetuneOptions(RunOptions):
    """Finetune a pretrained model, or continue where the run in the work folder stopped."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """A data folder of prepared questions, or published records."""
    init: Annotated[str, tyro.conf.arg(metavar="WEIGHTS")]
    """The weights to start from: base, large, a checkpoint, a work folder of train.pretrain, or random:tiny."""
    workdir: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Where checkpoints, metrics and the best weights go."""
    task: tyro.conf.Suppress[str]
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    sweep: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUES")] = ()
    """Train once for every combination of NAME=VALUE,VALUE (lr is short for learning_rate), and compare."""


@dataclass(frozen=True)
class PretrainingEvaluation(ReadingOptions):
    """Evaluate pretrained weights on shards: losses and the accuracy of every objective."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """A data folder, a manifest, a shard or a pattern."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="WEIGHTS")]
    """A work folder of train.pretrain, its export, or published weights: base, large, or a path."""
    split: Annotated[str | None, tyro.conf.arg(metavar="SPLIT")] = "val"
    """The split of a data folder."""
    batch_size: int | None = None
    """Examples that are candidates for each other; by default as many as in training."""
    json: bool = False
    """Print JSON instead of tables."""

    def check(self) -> None:
        """Raise `UsageError` for invalid values and missing paths."""
        _check(self)


@dataclass(frozen=True)
class QuestionEvaluation(ReadingOptions):
    """Evaluate a finetuned model, or write its leaderboard file."""

    task: ClassVar[str]

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """A data folder of prepared questions, or published records."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="WEIGHTS")]
    """A work folder of train.finetune, a file in its `best`, or a published name such as vcr_finetune_base."""
    split: Annotated[str, tyro.conf.arg(metavar="SPLIT")] = "val"
    """The split to evaluate."""
    submit: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write the leaderboard file into this folder instead."""
    predictions: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write a JSONL of every question's id, scores, right options and credit."""
    batch_size: int = 16
    """Questions of a batch, on all devices together."""
    json: bool = False
    """Print JSON instead of a table."""

    def check(self) -> None:
        """Raise `UsageError` for invalid values and missing paths."""
        _check(self)


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
        """Raise `UsageError` also for a request of a leaderboard file."""
        if self.submit is not None:
            raise UsageError(f"the task {self.task!r} has no leaderboard; leave --submit out")
        super().check()


def _check(options: PretrainingEvaluation | QuestionEvaluation) -> None:
    command_line.require_data("--data", options.data)
    command_line.require_checkpoint("--checkpoint", options.checkpoint, PUBLISHED_NAMES)
    command_line.require_not_negative("--reader-workers", options.reader_workers)
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size} must be at least 1")
