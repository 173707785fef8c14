"""Many questions about many videos: a CSV in, one line of JSON for each of its rows out.

    python -m pipelines.ask_batch questions.csv --out answers.jsonl --options-file answers.txt

The CSV has the columns `video` and `prompt`, and may have `options` (separated by `|`), `start` and `end`. Rows that
the output has answers to are not answered again, so a stopped command continues; a row that cannot be answered gets its
reason, and the next run tries it again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from model.config import Use
from pipelines.inference import options as ask_options
from pipelines.inference.questions import read_lines, read_questions, write_lines
from shards import command_line
from shards.command_line import run_command
from shards.storage import filesystem
from shards.storage.errors import UsageError


@dataclass(frozen=True)
class AskBatch:
    """Answer every row of a CSV."""

    questions: Annotated[str, tyro.conf.Positional]
    """A CSV with the columns video and prompt, and if needed options, start and end."""
    out: str
    """The JSONL file that is created or continued."""
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


def main(argv: list[str] | None = None) -> int:
    """The command; exit status 1 if rows could not be answered."""
    asked = command_line.parse(tyro.cli, AskBatch, "pipelines.ask_batch", argv)
    command_line.require_file("QUESTIONS", asked.questions)
    given = asked.options or asked.options_file
    shared = tuple(ask_options.listed_options(asked.options, asked.options_file)) if given else ()
    ask_options.check_options(shared)
    rows = list({row.key(): row for row in read_questions(asked.questions, shared)}.values())
    lines = read_lines(asked.out)
    made_with = {"checkpoint": asked.checkpoint, "use": asked.use}
    _check_same(asked.out, lines, made_with)
    done = {line["key"] for line in lines if "answers" in line}
    waiting = {row.key(): row for row in rows if row.key() not in done}
    if waiting:
        ask_options.check_checkpoint(asked.checkpoint)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    before = len(rows) - len(waiting)
    console.print(f"{len(rows)} questions, {before} answered before")
    if others := len({line["key"] for line in lines} - {row.key() for row in rows}):
        console.print(f"{asked.out} keeps {others} lines of other questions")
    failed = 0
    if waiting:
        from pipelines.inference.rows import answer_rows
        from pipelines.inference.weights import load_weights

        model = load_weights(asked.checkpoint, asked.grid)
        # Failed rows lose their lines before they are tried again, and so do lines that a killed command tore.
        write_lines(asked.out, [line for line in lines if line["key"] not in waiting])
        for line in answer_rows(model, list(waiting.values()), asked.use):
            failed += "error" in line
            filesystem.append_line(asked.out, json.dumps(line | made_with).encode())
    console.print(
        f"{len(waiting) - failed} answered now, {before} before, {failed} failed"
        + (f": see 'error' in {asked.out}; the same command tries them again" if failed else "")
    )
    return 1 if failed else 0


def _check_same(out: str, lines: list[dict], made_with: dict[str, str]) -> None:
    """Raise `UsageError` if an output was made with another model or by other means."""
    for line in lines:
        for name, ours in made_with.items():
            if line.get(name, ours) != ours:
                raise UsageError(f"{out!r} was made with --{name} {line[name]}, not {ours}; choose another --out")


if __name__ == "__main__":
    sys.exit(run_command(main))
