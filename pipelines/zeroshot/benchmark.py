"""What a zero-shot benchmark is: questions about videos, options, ranks, a score.

A benchmark only reads its files and says which seconds of which video each question shows. Rankings are written line by
line, so a stopped run continues; a question whose video cannot be read counts as wrong, and is counted.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.folders import MEDIA_SUFFIXES
from shards.storage import filesystem
from shards.storage.errors import UsageError

KEPT = 50
"""Options of a ranking that are written down."""

_ROUNDS = 5
"""Random rankings of each question that chance is the mean of."""

_TIMES = re.compile(r"_\d{6}_\d{6}$")

Intervals = list[tuple[float, float]]


@dataclass(frozen=True)
class Question:
    """A prompt about some seconds of a video, and the option that is right.

    `show` gives the intervals for the video's length in seconds, at least one; `options` are the question's own, if the
    benchmark does not share them; the prompt stands in the last segment.
    """

    id: str
    video: str
    show: Callable[[float], Intervals]
    prompt: str
    answer: str
    kind: str = ""
    options: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Ranking:
    """The best options for a question, best first; empty with a reason if it could not be asked."""

    id: str
    best: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Questions, the options they share, and the score of their rankings."""

    questions: Sequence[Question]
    options: tuple[str, ...] | None
    score: Callable[[Mapping[str, Ranking]], Mapping[str, float]]
    remarks: tuple[str, ...] = field(default=())


def find_videos(folder: str) -> dict[str, str]:
    """Media files anywhere under a folder, by their name without suffix, and without `_START_END` if it has that.

    Raises `UsageError` if there are none.
    """
    found = {p.stem: str(p) for p in sorted(Path(folder).rglob("*")) if p.suffix.lower() in MEDIA_SUFFIXES}
    if not found:
        raise UsageError(f"{folder!r} holds no videos")
    return {_TIMES.sub("", name): path for name, path in found.items()} | found


def read_rankings(path: str) -> dict[str, Ranking]:
    """The rankings in a file by question; torn lines are passed over."""
    if not filesystem.exists(path):
        return {}
    found = {}
    for line in filesystem.read_bytes(path).split(b"\n"):
        try:
            values = json.loads(line)
            found[values["id"]] = Ranking(values["id"], tuple(values["best"]), values["error"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def top(questions: Iterable[Question], rankings: Mapping[str, Ranking], count: int) -> float:
    """The share of questions whose answer is among the `count` best; one without ranking is wrong."""
    asked = list(questions)
    hits = sum(q.answer in rankings[q.id].best[:count] for q in asked if q.id in rankings)
    return hits / max(len(asked), 1)


def shares(questions: Sequence[Question], counts: Sequence[int]) -> Callable[[Mapping[str, Ranking]], dict[str, float]]:
    """A score of plain `top` accuracies, over all questions and for each kind of them."""

    def score(rankings: Mapping[str, Ranking]) -> dict[str, float]:
        found = {f"top-{count}": top(questions, rankings, count) for count in counts}
        for kind in sorted({q.kind for q in questions if q.kind}):
            found[f"top-1, {kind}"] = top([q for q in questions if q.kind == kind], rankings, 1)
        return found

    return score


def chance(benchmark: Benchmark, kept: int) -> Mapping[str, float]:
    """Score random rankings of `kept` options: the mean of a few rounds, the same every time."""
    draw = random.Random(0)
    rounds = []
    for _ in range(_ROUNDS):
        rankings = {}
        for question in benchmark.questions:
            options = _options(benchmark, question)
            rankings[question.id] = Ranking(question.id, tuple(draw.sample(options, min(kept, len(options)))))
        rounds.append(benchmark.score(rankings))
    return {name: sum(scores[name] for scores in rounds) / _ROUNDS for name in rounds[0]}


def majority(benchmark: Benchmark, kept: int) -> Mapping[str, float]:
    """Score the ranking of options by how often they are the answer, the same for every question."""
    counts = Counter(question.answer for question in benchmark.questions)
    # Questions that share their options share the ranking, and there may be thousands of both.
    ranked = {
        options: tuple(sorted(options, key=lambda option: -counts[option])[:kept])
        for options in {_options(benchmark, question) for question in benchmark.questions}
    }
    rankings = {q.id: Ranking(q.id, ranked[_options(benchmark, q)]) for q in benchmark.questions}
    return benchmark.score(rankings)


def _options(benchmark: Benchmark, question: Question) -> tuple[str, ...]:
    return question.options or benchmark.options or ()


def chunks(length: float, seconds: float) -> Intervals:
    """As many whole intervals of one length as fit, centred; a video shorter than one is one interval."""
    count = int(length / seconds)
    if not count:
        return [(0.0, length)] if length > 0 else []
    first = (length - count * seconds) / 2
    return [(first + i * seconds, first + (i + 1) * seconds) for i in range(count)]


def read_json(path: Path) -> list[dict]:
    """The objects of a JSON list. Raises `UsageError` naming the file."""
    try:
        items = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error}") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UsageError(f"{str(path)!r} is no list of objects")
    return items


def needed(item: Mapping, name: str, where: str):
    """A value that an item must have. Raises `UsageError` naming it."""
    if name not in item:
        raise UsageError(f"{where} has no {name!r}; it has {', '.join(map(str, item))[:200]}")
    return item[name]
