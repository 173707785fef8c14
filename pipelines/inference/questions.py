"""The rows of a CSV of questions, and which of them an output file has answered; standard library only."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ingest.raw import decode_text
from shards import filesystem
from shards.errors import UsageError

COLUMNS = ("video", "prompt")


@dataclass(frozen=True)
class Question:
    """One row: what is asked about which part of which video."""

    video: str
    prompt: str
    options: tuple[str, ...]
    start: float = 0.0
    end: float | None = None

    def key(self) -> str:
        """What the row is known by in the output."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def read_questions(path: str, options: tuple[str, ...]) -> list[Question]:
    """The rows of a CSV; `options` are those of rows without their own. Raises `UsageError` naming the row."""
    try:
        rows = list(csv.DictReader(decode_text(Path(path).read_bytes()).splitlines()))
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read: {error.strerror}") from None
    if not rows:
        raise UsageError(f"{path!r} has no rows; it needs the columns {', '.join(COLUMNS)}")
    if missing := [name for name in COLUMNS if name not in rows[0]]:
        raise UsageError(f"{path!r} has no column {missing[0]!r}; it has {', '.join(map(str, rows[0]))}")
    return [_question(row, options, f"row {number} of {path!r}") for number, row in enumerate(rows, 2)]


def _question(row: dict[str, str | None], options: tuple[str, ...], where: str) -> Question:
    own = tuple(option.strip() for option in (row.get("options") or "").split("|") if option.strip())
    try:
        start, end = float(row.get("start") or 0), float(row["end"]) if row.get("end") else None
    except ValueError:
        raise UsageError(f"{where} has a start or end that is no number of seconds") from None
    if not row["video"] or not row["prompt"]:
        raise UsageError(f"{where} has no video or no prompt")
    if not own and not options:
        raise UsageError(f"{where} has no options; fill its column options, or give --options or --options-file")
    return Question(row["video"], row["prompt"], own or options, start, end)


def answered(path: str) -> set[str]:
    """The keys of the rows that an output file has; a last line that is torn counts as missing."""
    if not filesystem.exists(path):
        return set()
    keys = set()
    for line in filesystem.read_bytes(path).split(b"\n"):
        try:
            keys.add(json.loads(line)["key"])
        except (ValueError, KeyError, TypeError):
            continue
    return keys
