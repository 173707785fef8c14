"""Kinetics-600: which of some classes a ten-second clip shows.

The list is a CSV as distributed, with `label` and `youtube_id` (and `time_start`, `time_end`); videos are named by the
id, or by id and times. Classes for the zero-shot splits are given as a file of one name a line.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from pipelines.zeroshot.benchmark import Benchmark, Question, chunks, needed, shares
from shards.storage.errors import UsageError


@dataclass(frozen=True)
class Kinetics:
    """Kinetics-600 zero-shot classification."""

    list: str
    """The CSV of the test clips."""
    classes: str | None = None
    """A file with one class a line; the classes of the list if not given."""
    seconds: float = 5.0
    prompt: str = "This is a video about <|MASK|>"

    def load(self) -> Benchmark:
        """Questions and options. Raises `UsageError`."""
        try:
            rows = list(csv.DictReader(Path(self.list).read_text().splitlines()))
            named = Path(self.classes).read_text().splitlines() if self.classes else []
        except OSError as error:
            raise UsageError(f"{error.filename!r} cannot be read: {error.strerror}") from None
        where = f"the list {self.list!r}"
        labels = [name.strip() for name in named if name.strip()] or sorted({needed(r, "label", where) for r in rows})
        show = functools.partial(chunks, seconds=self.seconds)
        questions = [
            Question(f"{number}", needed(row, "youtube_id", where), show, self.prompt, row["label"])
            for number, row in enumerate(rows)
            if row["label"] in labels
        ]
        if not questions:
            raise UsageError(f"{where} has no clip of the {len(labels)} classes")
        return Benchmark(questions, tuple(dict.fromkeys(labels)), shares(questions, (1, 5)))
