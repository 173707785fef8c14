"""Read a file of questions in the driver: the places of its lines, repeated ids, and the number of options."""

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
    """The most common number of options, the number of lines that have it, and the number of readable lines."""

    options: int
    lines: int
    readable: int


def places(path: str, limit: int | None = None) -> list[Place]:
    """Return the places of all lines that are not blank. Raises `UsageError` if there are none."""
    if not filesystem.exists(path):
        raise UsageError(f"there is no file {path!r}; give the folder or file of the questions")
    listed, offset = [], 0
    with filesystem.open_read(path) as file:
        for number, line in enumerate(file):
            if line.strip():
                listed.append((number, offset, len(line)))
            offset += len(line)
    if not listed:
        raise UsageError(f"{path!r} contains no question")
    return listed[:limit]


def repeated(path: str, listed: list[Place], id_of: Callable[[dict[str, Any], str], str], split: str) -> dict[int, int]:
    """Return the numbers of lines that repeat the id of an earlier line, with the number of the first such line."""
    first: dict[str, int] = {}
    repeats: dict[int, int] = {}
    for number, line in _objects(path, listed):
        name = id_of(line, f"{split}-{number}")
        if first.setdefault(name, number) != number:
            repeats[number] = first[name]
    return repeats


def most_common_options(path: str, limit: int | None = None) -> OptionCount | None:
    """Return the most common number of `answers`, the first one of a tie; `None` if no line is readable."""
    answers = (line.get("answers") for _, line in _objects(path, places(path, limit)))
    counts = Counter(len(listed) for listed in answers if isinstance(listed, list) and len(listed) > 1)
    if not counts:
        return None
    options, lines = counts.most_common(1)[0]
    return OptionCount(options, lines, counts.total())


def _objects(path: str, listed: list[Place]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the value of each line that is a JSON object."""
    with filesystem.open_read(path) as file:
        for number, offset, length in listed:
            file.seek(offset)
            try:
                line = json.loads(file.read(length))
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                yield number, line
