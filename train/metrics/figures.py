"""Accuracies as they are reported: counts and a 95 % interval beside what chance and the majority answer give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from shards.storage.errors import UserError
from train.metrics.intervals import wilson


class NotFiniteError(UserError):
    """A figure of an evaluation is not finite, so that nothing can be said of the weights; the message names it."""


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers: counts, what guessing gives, the bounds of its 95 % interval, and the majority answer.

    `right` is a fraction where equal scores share a right answer. `majority` is the share that the most frequent
    answer of the evaluated questions has; None where answers are not the same from question to question.
    """

    right: float
    asked: int
    chance: float
    low: float
    high: float
    majority: float | None = None

    @property
    def share(self) -> float:
        """Right answers among all; 0 if there are none."""
        return self.right / max(self.asked, 1)


def tally(counts: np.ndarray, majority: float | None = None) -> Accuracy:
    """Return the accuracy from rows `float [clusters, 3]` of right answers, questions, and right guesses expected.

    Answers about one example are alike, so the interval is Wilson's for as many independent questions as have the
    variance that is seen between examples (the design effect of cluster sampling).
    """
    right, asked, guessed = counts.sum(axis=0)
    share = right / max(asked, 1)
    low, high = wilson(float(share), float(asked) / design_effect(counts[:, 0], counts[:, 1]))
    return Accuracy(float(right), int(asked), float(guessed / max(asked, 1)), low, high, majority)


def design_effect(right: np.ndarray, asked: np.ndarray) -> float:
    """Return how much larger the variance of a share is than if all questions were independent; at least 1."""
    clusters, total = np.count_nonzero(asked), asked.sum()
    share = right.sum() / max(total, 1)
    if clusters < 2 or not 0 < share < 1:
        return 1.0
    between = clusters / (clusters - 1) * np.square(right - share * asked).sum() / total**2
    return max(float(between / (share * (1 - share) / total)), 1.0)


def majority_share(labels: np.ndarray) -> float:
    """Return the share of the most frequent row of `labels int [questions, n]`."""
    return float(np.unique(labels, axis=0, return_counts=True)[1].max() / len(labels))


def accuracy_table(title: str, accuracies: Mapping[str, Accuracy]) -> Table:
    """Build one row an accuracy: counts, interval, chance, and the majority answer where there is one."""
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("what", no_wrap=True)
    with_majority = any(one.majority is not None for one in accuracies.values())
    columns = ("right", "accuracy", "95 % interval", "chance", "x chance", *(["majority"] if with_majority else []))
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in accuracies.items():
        scope, _, what = name.rpartition("/")
        row = [
            f"{what}, in video" if scope.endswith("video") else what,
            f"{one.right:.10g}/{one.asked}",
            f"{one.share:.1%}",
            f"{one.low:.1%}-{one.high:.1%}",
            f"{one.chance:.1%}",
            f"{one.share / one.chance:.1f}" if one.chance else "-",
        ]
        if with_majority:
            row.append("-" if one.majority is None else f"{one.majority:.1%}")
        table.add_row(*row)
    return table
