"""The configuration of a finetuning run; the defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.config import RematPolicy
from shards.records.question_config import QuestionConfig
from shards.storage.errors import UsageError
from train.config import OptimizerConfig, RunConfig


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """A finetuning run, whatever the data and the weights; the defaults are published (docs/spec/training.md 7)."""

    LAYOUT = (*RunConfig.LAYOUT, "val_split")

    input: QuestionConfig
    learning_rate: float = 1e-5
    """Peak of the learning rate."""
    epochs: int = 5
    """Passes over the training split."""
    batch_size: int = field(default=32, kw_only=True)
    """Questions of a step, on all devices together."""
    warmup_epochs: float = 0.5
    """Epochs until the learning rate has reached its peak."""
    weight_decay: float = 0.1
    """Decay toward the initial weights."""
    beta_2: float = 0.98
    """Decay of Adam's second moment."""
    eps: float = 1e-6
    """Added to the denominator of Adam's update."""
    moments: Literal["bfloat16", "float32"] = "bfloat16"
    """Type in which Adam's moments are stored."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type that the network computes in; parameters are float32."""
    scan_layers: bool = False
    """Compile the layers of a stack as one loop."""
    remat: RematPolicy = "none"
    """What the stacks keep for the backward pass."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str | None = "val"
    """Split to evaluate after every epoch; None evaluates nothing and keeps the last weights."""
    window: int = 256
    """Shards whose records are shuffled together."""
    bad_records: int = 0
    """Number of damaged records that are replaced by others before the run stops."""
    checkpoint_every: int = field(default=1_000, kw_only=True)
    """Steps between two checkpoints."""
    keep: int = field(default=2, kw_only=True)
    """Number of newest checkpoints to keep."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.bad_records < 0:
            raise UsageError(f"bad_records is {self.bad_records}; it must be 0 or more")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise UsageError(
                f"warmup_epochs is {self.warmup_epochs}; it must be between 0 and the {self.epochs} epochs"
            )
        self.optimizer(1)

    def optimizer(self, steps_per_epoch: int) -> OptimizerConfig:
        """Return the optimizer for epochs of that length. Raises `UsageError` for numbers outside their ranges."""
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            total_steps=self.epochs * steps_per_epoch,
            warmup_steps=min(int(self.warmup_epochs * steps_per_epoch), self.epochs * steps_per_epoch),
            weight_decay=self.weight_decay,
            beta_2=self.beta_2,
            eps=self.eps,
            moments=self.moments,
        )
