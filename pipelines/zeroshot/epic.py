"""EPIC-Kitchens-100 action anticipation: predict an action one second before it starts (docs/spec/training.md 13.2).

The folder of annotations contains `validation.csv` (no header) and `actions.csv` of the anticipation benchmark and
`EPIC_100_validation.csv` of the data set; videos are named `P01_01.MP4`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.zeroshot.benchmark import Benchmark, Intervals, Question, Ranking
from shards.storage.errors import UsageError

PROMPT = "My next action is <|MASK|>"
_BEST = 5


@dataclass(frozen=True)
class Epic:
    """EPIC-Kitchens-100 action anticipation."""

    annotations: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The folder of validation.csv, actions.csv and EPIC_100_validation.csv."""
    gap: float = 1.0
    """Seconds between the last segment and the action."""
    segments: int = 8
    """Number of segments before the action."""
    seconds: float = 2.0
    """Length of a segment, in seconds."""

    def load(self) -> Benchmark:
        """Return the questions and options. Raises `UsageError` naming an invalid file."""
        folder = Path(self.annotations)
        actions = {row["id"]: row for row in _table(folder / "actions.csv", ("id", "verb", "noun"))}
        spoken = {number: f"{row['verb']} {spoken_noun(row['noun'])}" for number, row in actions.items()}
        columns = ("narration_id", "start_timestamp")
        starts = {
            row["narration_id"]: seconds(row["start_timestamp"], row["narration_id"])
            for row in _table(folder / "EPIC_100_validation.csv", columns)
        }
        questions = []
        for row in _rows(folder / "validation.csv"):
            try:
                narration, video, action = row[0], row[1], row[6]
                questions.append(Question(narration, video, self._show(starts[narration]), PROMPT, spoken[action]))
            except (IndexError, KeyError) as error:
                raise UsageError(f"validation.csv: the row {row[:7]} does not match the other files: {error}") from None
        parts = {text: (actions[number]["verb"], actions[number]["noun"]) for number, text in spoken.items()}

        def score(rankings: Mapping[str, Ranking]) -> dict[str, float]:
            return accuracy(questions, rankings, parts)

        return Benchmark(questions, tuple(dict.fromkeys(spoken.values())), score)

    def _show(self, start: float):
        def show(length: float) -> Intervals:
            end = min(start - self.gap, length)
            intervals = [(end - (k + 1) * self.seconds, end - k * self.seconds) for k in range(self.segments)]
            return [(a, b) for a, b in reversed(intervals) if a >= 0]

        return show


def accuracy(
    questions: list[Question], rankings: Mapping[str, Ranking], parts: Mapping[str, tuple[str, str]]
) -> dict[str, float]:
    """Return top-1 and top-5 accuracies of action, verb and noun, the latter two from the distinct parts of actions."""
    accuracies: dict[str, float] = {}
    for name, read in (("action", lambda t: t), ("verb", lambda t: parts[t][0]), ("noun", lambda t: parts[t][1])):
        for count in (1, _BEST):
            hits = 0
            for question in questions:
                best = rankings.get(question.id, Ranking(question.id)).best
                hits += read(question.answer) in list(dict.fromkeys(map(read, best)))[:count]
            accuracies[f"{name} top-{count}"] = hits / max(len(questions), 1)
    return accuracies


def spoken_noun(noun: str) -> str:
    """Return a noun such as `cupboard:door` in spoken order."""
    return " ".join(reversed(noun.split(":")))


def seconds(stamp: str, narration: str) -> float:
    """Convert `HH:MM:SS.ff` to seconds. Raises `UsageError`."""
    try:
        hours, minutes, rest = stamp.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(rest)
    except ValueError:
        raise UsageError(f"{narration} starts at {stamp!r}, which is not HH:MM:SS.ff") from None


def _rows(path: Path) -> list[list[str]]:
    try:
        return [row for row in csv.reader(path.read_text().splitlines()) if row]
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _table(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    rows = _rows(path)
    if not rows or any(name not in rows[0] for name in needed):
        raise UsageError(f"{str(path)!r} needs a header with {', '.join(needed)}")
    return [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
