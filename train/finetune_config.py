"""The configuration of a finetuning run; the defaults are the published ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from model.config import RematPolicy
from shards.records.question_config import QuestionConfig
from shards.storage.errors import UsageError
from train.config import MeshConfig, OptimizerConfig


@dataclass(frozen=True)
class FinetuneConfig:
    """A finetuning run, whatever the data and the weights; the defaults are the published ones.

    See docs/spec/training.md 7.
    """

    input: QuestionConfig
    learning_rate: float = 1e-5
    """The peak."""
    epochs: int = 5
    """Passes over the training split."""
    batch_size: int = 32
    """Questions of a step, on all devices together."""
    microbatches: int = 1
    """Parts that a device takes its questions in, to save memory; gradients are averaged over them."""
    warmup_epochs: float = 0.5
    """Epochs until the learning rate has reached its peak."""
    weight_decay: float = 0.1
    """Toward the weights that the run began with."""
    beta_2: float = 0.98
    """Decay of Adam's second moment."""
    eps: float = 1e-6
    """Added to the denominator of Adam's update."""
    moments: Literal["bfloat16", "float32"] = "bfloat16"
    """Type in which Adam's moments are stored."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """The type that the network computes in; parameters are float32."""
    scan_layers: bool = False
    """Compile the layers of a stack as one loop."""
    remat: RematPolicy = "none"
    """What the stacks keep for the backward pass."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    seed: int = 0
    """Seed of the new weights and of the order of questions."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str | None = "val"
    """Evaluated after every epoch; None to evaluate nothing and keep the last weights."""
    window: int = 256
    """Shards whose records are shuffled together."""
    bad_records: int = 0
    """How many damaged records are replaced by others before the run stops."""
    log_every: int = 50
    """Steps between two lines of metrics."""
    checkpoint_every: int = 1_000
    """Steps between two checkpoints."""
    keep: int = 2
    """Number of checkpoints to keep."""
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
