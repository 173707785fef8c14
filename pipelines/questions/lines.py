"""What the driver reads of a file of questions: where its lines are, which ids repeat, how many options they have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shards.storage import filesystem
from shards.storage.errors import UsageError

Place = tuple[int, int, int]
"""Number, offset and length of a line."""


@dataclass(frozen=True)
class OptionCount:
    """The number of options that most lines have, and how many of the readable lines have it."""

    options: int
    lines: int
    readable: int


def places(path: str, limit: int | None = None) -> list[Place]:
    """Every line that is not blank. Raises `UsageError` if there is none."""
    if not filesystem.exists(path):
        raise UsageError(f"there is no file {path!r}; give the folder or file that holds the questions")
    listed, offset = [], 0
    with filesystem.open_read(path) as file:
        for number, line in enumerate(file):
            if line.strip():
                listed.append((number, offset, len(line)))
            offset += len(line)
    if not listed:
        raise UsageError(f"{path!r} holds no question")
    return listed[:limit]


def repeated(path: str, listed: list[Place], id_of: Callable[[dict[str, Any], str], str], split: str) -> dict[int, int]:
    """The lines whose id an earlier line has, each with the number of the first one."""
    first: dict[str, int] = {}
    repeats: dict[int, int] = {}
    for number, line in _objects(path, listed):
        name = id_of(line, f"{split}-{number}")
        if first.setdefault(name, number) != number:
            repeats[number] = first[name]
    return repeats


def most_common_options(path: str, limit: int | None = None) -> OptionCount | None:
    """How many `answers` most lines have, of two equally common numbers the first; `None` if no line is readable."""
    answers = (line.get("answers") for _, line in _objects(path, places(path, limit)))
    counts = Counter(len(listed) for listed in answers if isinstance(listed, list) and len(listed) > 1)
    if not counts:
        return None
    options, lines = counts.most_common(1)[0]
    return OptionCount(options, lines, counts.total())


def _objects(path: str, listed: list[Place]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and value of the lines that are JSON objects."""
    with filesystem.open_read(path) as file:
        for number, offset, length in listed:
            file.seek(offset)
            try:
                line = json.loads(file.read(length))
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                yield number, line
