"""The options of the demo's zero-shot questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class QuestionOptions:
    """Answer zero-shot questions about the images and sounds of the corpus, and print the accuracies."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """The data folder with the question videos as a split."""
    truth: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The corpus' folder of question videos, with their truth files."""
    checkpoint: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """A finished run of train.pretrain, or its export."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "questions"
    """The split of the question videos."""
    limit: int | None = None
    """Maximum number of questions."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the accuracies to this JSON file."""
