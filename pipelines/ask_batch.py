"""Many questions about many videos: a CSV in, one line of JSON for each of its rows out.

    python -m pipelines.ask_batch questions.csv --out answers.jsonl --options-file answers.txt

The CSV has the columns `video` and `prompt`, and may have `options` (separated by `|`), `start` and `end`. Rows that
the output has already are not asked again, so a stopped command continues; a row that cannot be answered gets its
reason.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ingest.clip import ClipError
from ingest.raw import decode_text
from model import inference
from model.inference import Answers, Use
from model.published import Pretrained
from model.reserve import InputError
from pipelines.ask import Part, inputs, listed_options, read_clip
from pipelines.weights import load_weights
from shards import filesystem
from shards.errors import UsageError, run_command

COLUMNS = ("video", "prompt")


@dataclass(frozen=True)
class AskBatch:
    """Answer every row of a CSV."""

    questions: Annotated[str, tyro.conf.Positional]
    """A CSV with the columns video and prompt, and if needed options, start and end."""
    out: str
    """The JSONL file that is made or continued."""
    options: str = ""
    """Answers for rows without options of their own, with commas between them."""
    options_file: str | None = None
    """A file with one such answer a line."""
    checkpoint: str = "base"
    """As for `pipelines.ask`."""
    grid: tuple[int, int] | None = None
    """As for `pipelines.ask`."""
    use: Use = "auto"
    """As for `pipelines.ask`."""


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


def answer_rows(model: Pretrained, rows: list[Question], use: Use) -> Iterator[dict]:
    """The line of each row, in order; rows next to each other that share a part of a video share its encoding."""
    position = 0
    while position < len(rows):
        first = rows[position]
        group = [first]
        for row in rows[position + 1 :]:
            if (row.video, row.start, row.end, row.options) != (first.video, first.start, first.end, first.options):
                break
            group.append(row)
        position += len(group)
        try:
            video = inputs(read_clip(first.video, Part(first.start, first.end)), model.config.grid)
        except ClipError as error:
            yield from (_line(row, error=str(error)) for row in group)
            continue
        try:
            answers = inference.answer_all(model, video, [row.prompt for row in group], first.options, use)
        except InputError:
            # One prompt of several may be wrong; each is asked alone, so that only that one fails.
            yield from (_alone(model, video, row, use) for row in group)
            continue
        yield from (_line(row, masks) for row, masks in zip(group, answers, strict=True))


def _alone(model: Pretrained, video: inference.VideoInputs, row: Question, use: Use) -> dict:
    try:
        return _line(row, inference.answer_all(model, video, [row.prompt], row.options, use)[0])
    except InputError as error:
        return _line(row, error=str(error))


def _line(row: Question, masks: list[Answers] | None = None, error: str | None = None) -> dict:
    line = {"key": row.key(), "video": row.video, "prompt": row.prompt, "start": row.start, "end": row.end}
    if masks is None:
        return line | {"error": error}
    ranked = [
        [[option, round(float(p), 6)] for option, p in zip(answer.options, answer.probabilities, strict=True)]
        for answer in masks
    ]
    return line | {"answers": ranked}


def main(argv: list[str] | None = None) -> int:
    """The command; exit status 1 if rows could not be answered."""
    asked = tyro.cli(AskBatch, args=argv, prog="python -m pipelines.ask_batch")
    shared = tuple(listed_options(asked.options, asked.options_file)) if asked.options or asked.options_file else ()
    rows = read_questions(asked.questions, shared)
    done = answered(asked.out)
    waiting = [row for row in rows if row.key() not in done]
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{len(rows)} questions, {len(rows) - len(waiting)} answered before")
    failed = 0
    if waiting:
        model = load_weights(asked.checkpoint, asked.grid)
        for line in answer_rows(model, waiting, asked.use):
            failed += "error" in line
            filesystem.append_line(asked.out, json.dumps(line).encode())
    console.print(f"{len(waiting) - failed} answered now, {failed} not: see 'error' in {asked.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
