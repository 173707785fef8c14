"""Kinetics-600: classify ten-second clips.

The list is a CSV as distributed, with `label` and `youtube_id` (and `time_start`, `time_end`); videos are named by the
id, or by id and times. The classes of a zero-shot split are listed in a file with one name per line.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.zeroshot.benchmark import Benchmark, Question, chunks, needed, shares
from shards.storage.errors import UsageError


@dataclass(frozen=True)
class Kinetics:
    """Kinetics-600 zero-shot classification."""

    list: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The CSV of the test clips."""
    classes: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """A file with one class per line; by default the classes in the list."""
    seconds: float = 5.0
    """Length of a segment, in seconds."""
    prompt: Annotated[str, tyro.conf.arg(metavar="PROMPT")] = "This is a video about <|MASK|>"
    """The prompt, whose options are the classes."""

    def load(self) -> Benchmark:
        """Return the questions and options. Raises `UsageError`."""
        try:
            rows = list(csv.DictReader(Path(self.list).read_text().splitlines()))
            lines = Path(self.classes).read_text().splitlines() if self.classes else []
        except OSError as error:
            raise UsageError(f"{error.filename!r} cannot be read: {error.strerror}") from None
        where = f"the list {self.list!r}"
        labels = [line.strip() for line in lines if line.strip()] or sorted({needed(r, "label", where) for r in rows})
        show = functools.partial(chunks, seconds=self.seconds)
        questions = [
            Question(f"{number}", needed(row, "youtube_id", where), show, self.prompt, row["label"])
            for number, row in enumerate(rows)
            if row["label"] in labels
        ]
        if not questions:
            raise UsageError(f"{where} has no clip of the {len(labels)} classes")
        return Benchmark(questions, tuple(dict.fromkeys(labels)), shares(questions, (1, 5)))
