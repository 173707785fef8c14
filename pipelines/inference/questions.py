"""The rows of a CSV of questions, and the lines of an output file; standard library only."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from ingest.raw import decode_text
from shards.storage import filesystem
from shards.storage.errors import UsageError

COLUMNS = ("video", "prompt")
_START = b'{"key": "'
"""How every output file starts."""


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
        # With its own line ends, a field in quotes keeps those inside it.
        rows = list(csv.DictReader(io.StringIO(decode_text(Path(path).read_bytes()), newline="")))
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise UsageError(f"{path!r} is not a CSV: {error}") from None
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
    if not math.isfinite(start) or (end is not None and math.isnan(end)):
        raise UsageError(f"{where} has a start or end that is no number of seconds")
    if not row["video"] or not row["prompt"]:
        raise UsageError(f"{where} has no video or no prompt")
    if not own and not options:
        raise UsageError(f"{where} has no options; fill its column options, or give --options or --options-file")
    return Question(row["video"], row["prompt"], own or options, start, end)


def read_lines(path: str) -> list[dict]:
    """The lines of an output file, the newest of each row; a line that is torn counts as missing.

    Raises `UsageError` for a file that is not an output.
    """
    if not filesystem.exists(path):
        return []
    content = filesystem.read_bytes(path)
    if content.strip() and not content.startswith(_START[: len(content)]):
        raise UsageError(f"{path!r} is there and is not an output of this command; choose another --out")
    newest: dict[str, dict] = {}
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
            newest[line["key"]] = line
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return list(newest.values())


def write_lines(path: str, lines: list[dict]) -> None:
    """Replace an output file in one step."""
    filesystem.write_bytes(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
