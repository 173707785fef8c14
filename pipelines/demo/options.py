"""The options of the demo's zero-shot questions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuestionOptions:
    """Ask what the corpus shows and lets hear, and print how often the answers are right."""

    data: str
    """The data folder that holds the question videos as a split."""
    truth: str
    """The corpus' folder of question videos, with their truth files."""
    checkpoint: str
    """A finished run of train.pretrain, or its export."""
    split: str = "questions"
    limit: int | None = None
    """Ask no more questions than this."""
    out: str | None = None
    """Also write the accuracies to this JSON file."""
