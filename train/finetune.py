"""The command that finetunes: `python -m train.finetune vcr --data DATA --init base --workdir DIR`.

The same command continues a run that was interrupted in any way; SIGTERM saves first. After every epoch the split `val`
is evaluated on all hosts, and the best weights are kept beside the checkpoints.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from model.config import PUBLISHED_NAMES, RematPolicy
from shards import command_line
from shards.errors import UsageError, run_command
from shards.reading.cache import CacheOptions
from shards.reading.question_config import QuestionConfig
from train.config import UNTRAINED, MeshConfig, OptimizerConfig
from train.processes import Hosts
from train.supervisor import supervised
from train.tasks.readers import READERS


@dataclass(frozen=True)
class FinetuneConfig:
    """A finetuning run, whatever the data and the weights; the defaults are the published ones (spec training.md 7)."""

    input: QuestionConfig
    learning_rate: float = 1e-5
    """The peak."""
    epochs: int = 5
    batch_size: int = 32
    """Questions of a step, on all devices together."""
    microbatches: int = 1
    """Parts that a device takes its questions in, to save memory; gradients are averaged over them."""
    warmup_epochs: float = 0.5
    weight_decay: float = 0.1
    """Toward the weights that the run began with."""
    beta_2: float = 0.98
    eps: float = 1e-6
    moments: Literal["bfloat16", "float32"] = "bfloat16"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """The type that the network computes in; parameters are float32."""
    scan_layers: bool = False
    """Compile the layers of a stack as one loop."""
    remat: RematPolicy = "none"
    """What the stacks keep for the backward pass."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    seed: int = 0
    train_split: str = "train"
    val_split: str | None = "val"
    """Evaluated after every epoch; None to evaluate nothing and keep the last weights."""
    window: int = 256
    """Shards whose records are shuffled together."""
    bad_records: int = 0
    """How many damaged records are replaced by others before the run stops."""
    log_every: int = 50
    checkpoint_every: int = 1_000
    keep: int = 2
    skip_limit: int = 50
    """Updates in a row that may be skipped for numbers that are not finite before the run stops."""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "microbatches",
            "window",
            "log_every",
            "checkpoint_every",
            "keep",
            "skip_limit",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.bad_records < 0:
            raise UsageError(f"bad_records is {self.bad_records}; it must be 0 or more")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}; it must be at least 0 and below 2**32")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UsageError(
                f"warmup_epochs is {self.warmup_epochs}; it must be between 0 and the {self.epochs} epochs"
            )
        self.optimizer(1)

    def optimizer(self, steps_per_epoch: int) -> OptimizerConfig:
        """Return the optimizer for epochs of so many steps. Raises `UsageError` for numbers outside their ranges."""
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            total_steps=self.epochs * steps_per_epoch,
            warmup_steps=min(int(self.warmup_epochs * steps_per_epoch), self.epochs * steps_per_epoch),
            weight_decay=self.weight_decay,
            beta_2=self.beta_2,
            eps=self.eps,
            moments=self.moments,
        )

    def numbers(self) -> dict[str, Any]:
        """Everything that decides the numbers of a run, as JSON: all but its rhythm and mesh."""
        rhythm = ("mesh", "log_every", "checkpoint_every", "keep", "skip_limit", "val_split")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in rhythm}


@dataclass(frozen=True)
class Finetune:
    """Finetune a pretrained model, or continue where the run in the work folder stopped."""

    data: str
    """A data folder of prepared questions, or published records."""
    init: str
    """The weights to start from: base, large, a checkpoint, a work folder of train.pretrain, or random:tiny."""
    workdir: str
    """Where checkpoints, metrics and the best weights go."""
    task: tyro.conf.Suppress[str]
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]
    sweep: tuple[str, ...] = ()
    """Run once for every combination, each NAME=VALUE,VALUE (lr is short for learning_rate), and compare them."""
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
    changes = combinations(options)

    def work() -> int:
        from train.finetuning import start

        return start(options, changes)

    return supervised(options.processes, work)


def parse(argv: list[str] | None) -> Finetune:
    """The command line as options: a task's name, then changes to its configuration.

    Raises `UsageError` for impossible values.
    """
    missing = (tyro.MISSING, tyro.MISSING, tyro.MISSING)
    presets = {
        name: (f"Finetune on {name}.", Finetune(*missing, name, FinetuneConfig(reader)))
        for name, reader in READERS.items()
    }
    return command_line.parse(
        tyro.extras.overridable_config_cli, presets, "train.finetune", argv, names=READERS, noun="task"
    )


def check(options: Finetune) -> None:
    """Raise `UsageError` for inputs on this machine that are not there, and for values that cannot be."""
    options.processes.check()
    command_line.require_data("--data", options.data)
    command_line.require_checkpoint("--init", options.init, (*PUBLISHED_NAMES, *UNTRAINED))
    command_line.require_not_negative("--profile", options.profile)
    command_line.require_not_negative("--reader-workers", options.reader_workers)


def combinations(options: Finetune) -> list[dict[str, Any]]:
    """The changes of every run of a sweep. Raises `UsageError` for what cannot be swept over."""
    fields = {f.name: type(getattr(options.config, f.name)) for f in dataclasses.fields(options.config)}
    axes: dict[str, list[Any]] = {}
    for text in options.sweep:
        short, _, values = text.partition("=")
        name = {"lr": "learning_rate"}.get(short, short)
        if fields.get(name) not in (int, float, str):
            raise UsageError(f"--sweep {text!r}: {short!r} is no number of the configuration; give lr=1e-5,2e-5")
        try:
            axes[name] = [fields[name](value) for value in values.split(",")]
        except ValueError:
            raise UsageError(f"--sweep {text!r}: {values!r} is not a list such as 1e-5,2e-5") from None
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


if __name__ == "__main__":
    sys.exit(run_command(main))
