"""Read the rows of a CSV of questions, and the lines of an output file."""

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
"""The first bytes of every output file."""


@dataclass(frozen=True)
class Question:
    """One row: a prompt and its options about a part of a video."""

    video: str
    prompt: str
    options: tuple[str, ...]
    start: float = 0.0
    end: float | None = None

    def key(self) -> str:
        """Return the key of the row in the output file."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def read_questions(path: str, options: tuple[str, ...]) -> list[Question]:
    """Return the rows of a CSV; `options` are those of rows without their own. Raises `UsageError` naming the row."""
    try:
        # Without newline translation, quoted fields keep their line ends.
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
        start, last = float(row.get("start") or 0), row.get("end")
        end = float(last) if last else None
    except ValueError:
        raise UsageError(f"{where} has a start or end that is not a number of seconds") from None
    if not math.isfinite(start) or (end is not None and math.isnan(end)):
        raise UsageError(f"{where} has a start or end that is not a number of seconds")
    if not row["video"] or not row["prompt"]:
        raise UsageError(f"{where} has no video or no prompt")
    if not own and not options:
        raise UsageError(f"{where} has no options; fill in its options column, or give --options or --options-file")
    return Question(row["video"], row["prompt"], own or options, start, end)


def read_lines(path: str) -> list[dict]:
    """Return the last line of each row in an output file; incomplete lines are ignored.

    Raises `UsageError` for a file that is not an output file.
    """
    if not filesystem.exists(path):
        return []
    content = filesystem.read_bytes(path)
    if content.strip() and not content.startswith(_START[: len(content)]):
        raise UsageError(f"{path!r} exists and is not an output of this command; choose another --out")
    newest: dict[str, dict] = {}
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
            newest[line["key"]] = line
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return list(newest.values())


def write_lines(path: str, lines: list[dict]) -> None:
    """Replace an output file atomically."""
    filesystem.write_bytes(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
