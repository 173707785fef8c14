"""The tasks a model can be finetuned on, behind one interface: what is read, what is computed, what is reported.

A task is one record format in `shards.records` and one module here that fills in a `Task`; everything else (training,
evaluation, checkpoints) is shared. docs/tasks.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shards.storage.errors import UserError

if TYPE_CHECKING:
    import jax

    from model.reserve import MerlotReserve
    from shards.records.parser import RecordParser
    from shards.records.question_config import QuestionConfig

Batch = Mapping[str, "jax.Array"]
Logits = Any
"""A tree of float arrays whose first axis is the questions and whose last is the options."""


class SubmissionError(UserError):
    """A leaderboard file cannot be made or is not what the leaderboard takes; the message says why."""


@dataclass(frozen=True)
class Task:
    """One kind of question.

    `losses` and `right` map logits and batch to named arrays of one value for each question, on the device; the loss
    of training is the mean of the sum of `losses`. `right` is the credit of a choice (`train.metrics.tie_credit`), and
    `labels` maps a batch to the right options behind each of its names, `int [questions, choices]`. `right[best]`
    decides which checkpoint is kept. `submit` writes a leaderboard file from the predictions for each of
    `submitted_splits` and returns its paths; it is None where there is no leaderboard.
    """

    name: str
    reader: QuestionConfig
    parser: Callable[[Any], RecordParser]
    """Makes the parser of records from the configuration of `reader`'s class."""
    dropped: tuple[str, ...]
    """Parts of a pretrained model that the task has no use for."""
    logits: Callable[[MerlotReserve, dict, Batch], Logits]
    losses: Callable[[Logits, Batch], dict[str, jax.Array]]
    right: Callable[[Logits, Batch], dict[str, jax.Array]]
    labels: Callable[[Batch], dict[str, jax.Array]]
    best: str
    fit: Callable[[Any, bytes], QuestionConfig] | None = None
    """Takes the sizes of the task from its first record; None where the task fixes them."""
    submit: Callable[[Mapping[str, Predictions], str], list[str]] | None = None
    submitted_splits: tuple[str, ...] = ()
    """The splits that a leaderboard file is made from."""


@dataclass(frozen=True)
class Predictions:
    """The answers of a model as NumPy arrays: the ids of the questions, the logits, and by metric credit and labels."""

    ids: Sequence[str]
    logits: Logits
    right: Mapping[str, Any]
    labels: Mapping[str, Any]
