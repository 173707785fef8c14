"""The parts of a zero-shot benchmark: questions about videos, options, rankings and scores.

A benchmark reads its files and defines which intervals of which video each question shows. Rankings are written line by
line, so a stopped run can be resumed; a question whose video cannot be read counts as wrong.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.folders import MEDIA_SUFFIXES
from shards.storage import filesystem
from shards.storage.errors import UsageError

MAX_RANKED = 50
"""The maximum number of options in a stored ranking."""

_ROUNDS = 5
"""The number of random rankings per question over which chance is averaged."""

_TIMES = re.compile(r"_\d{6}_\d{6}$")

Intervals = list[tuple[float, float]]


@dataclass(frozen=True)
class Question:
    """A prompt about some intervals of a video, and its right option.

    `show` returns the intervals for the video's length in seconds, at least one; `options` are those of the question if
    the benchmark has no shared ones; the prompt is placed in the last segment.
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
    """The best options for a question, best first; empty, with an error, if it could not be answered."""

    id: str
    best: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Benchmark:
    """Questions, their shared options, and the function that scores rankings."""

    questions: Sequence[Question]
    options: tuple[str, ...] | None
    score: Callable[[Mapping[str, Ranking]], Mapping[str, float]]
    remarks: tuple[str, ...] = field(default=())


def find_videos(folder: str) -> dict[str, str]:
    """Return the media files in a folder and its subfolders by their names, with and without suffix `_START_END`.

    Raises `UsageError` if there are none.
    """
    videos = {p.stem: str(p) for p in sorted(Path(folder).rglob("*")) if p.suffix.lower() in MEDIA_SUFFIXES}
    if not videos:
        raise UsageError(f"{folder!r} contains no videos")
    return {_TIMES.sub("", name): path for name, path in videos.items()} | videos


def read_rankings(path: str) -> dict[str, Ranking]:
    """Return the rankings in a file by question; incomplete lines are ignored."""
    if not filesystem.exists(path):
        return {}
    rankings = {}
    for line in filesystem.read_bytes(path).split(b"\n"):
        try:
            values = json.loads(line)
            rankings[values["id"]] = Ranking(values["id"], tuple(values["best"]), values["error"])
        except (ValueError, KeyError, TypeError):
            continue
    return rankings


def top(questions: Iterable[Question], rankings: Mapping[str, Ranking], count: int) -> float:
    """Return the share of questions whose answer is in the `count` best; a question without a ranking is wrong."""
    scored = list(questions)
    hits = sum(q.answer in rankings[q.id].best[:count] for q in scored if q.id in rankings)
    return hits / max(len(scored), 1)


def shares(questions: Sequence[Question], counts: Sequence[int]) -> Callable[[Mapping[str, Ranking]], dict[str, float]]:
    """Return a function that scores rankings by `top` accuracies, of all questions and of each kind."""

    def score(rankings: Mapping[str, Ranking]) -> dict[str, float]:
        scores = {f"top-{count}": top(questions, rankings, count) for count in counts}
        for kind in sorted({q.kind for q in questions if q.kind}):
            scores[f"top-1, {kind}"] = top([q for q in questions if q.kind == kind], rankings, 1)
        return scores

    return score


def chance(benchmark: Benchmark, ranked: int) -> Mapping[str, float]:
    """Return the score of random rankings of `ranked` options, as the mean of a few rounds with a fixed seed."""
    draw = random.Random(0)
    rounds = []
    for _ in range(_ROUNDS):
        rankings = {}
        for question in benchmark.questions:
            options = _options(benchmark, question)
            rankings[question.id] = Ranking(question.id, tuple(draw.sample(options, min(ranked, len(options)))))
        rounds.append(benchmark.score(rankings))
    return {name: sum(scores[name] for scores in rounds) / _ROUNDS for name in rounds[0]}


def majority(benchmark: Benchmark, ranked: int) -> Mapping[str, float]:
    """Return the score of ranking `ranked` options by their frequency as answers, for every question."""
    counts = Counter(question.answer for question in benchmark.questions)
    # Questions with the same options share the ranking, because there may be thousands of both.
    best = {
        options: tuple(sorted(options, key=lambda option: -counts[option])[:ranked])
        for options in {_options(benchmark, question) for question in benchmark.questions}
    }
    rankings = {q.id: Ranking(q.id, best[_options(benchmark, q)]) for q in benchmark.questions}
    return benchmark.score(rankings)


def _options(benchmark: Benchmark, question: Question) -> tuple[str, ...]:
    return question.options or benchmark.options or ()


def chunks(length: float, seconds: float) -> Intervals:
    """Return as many intervals of one length as fit, centred; a video shorter than that is one interval."""
    count = int(length / seconds)
    if not count:
        return [(0.0, length)] if length > 0 else []
    first = (length - count * seconds) / 2
    return [(first + i * seconds, first + (i + 1) * seconds) for i in range(count)]


def read_json(path: Path) -> list[dict]:
    """Return the objects of a JSON list. Raises `UsageError` naming the file."""
    try:
        items = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error}") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UsageError(f"{str(path)!r} is not a JSON list of objects")
    return items


def needed(item: Mapping[str, Any], name: str, where: str) -> Any:
    """Return a value that an item must have. Raises `UsageError` naming it."""
    if name not in item:
        raise UsageError(f"{where} has no {name!r}; it has {', '.join(map(str, item))[:200]}")
    return item[name]
