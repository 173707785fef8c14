"""Answer a CSV of questions about videos as one line of JSON per row.

    python -m pipelines.ask_batch questions.csv --out answers.jsonl --options-file answers.txt

The CSV has the columns `video` and `prompt`, and optionally `options` (separated by `|`), `start` and `end`. Rows with
an answer in the output are skipped, so the same command resumes a stopped run; a row that fails gets an error, and the
next run retries it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from pipelines.inference import options as ask_options
from pipelines.inference.questions import read_lines, read_questions, write_lines
from shards import command_line
from shards.command_line import run_command
from shards.storage import filesystem
from shards.storage.errors import UsageError


@dataclass(frozen=True)
class AskBatch:
    """Answer a CSV of questions about videos."""

    questions: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """A CSV with the columns video and prompt, and optionally options, start and end."""
    out: ask_options.File
    """The JSONL file to create or to continue."""
    options: Annotated[str, tyro.conf.arg(metavar="OPTION,OPTION,...")] = ""
    """Options of rows without their own, separated by commas."""
    options_file: ask_options.OptionalFile = None
    """A file with one option per line, for rows without their own."""
    checkpoint: ask_options.Checkpoint = "base"
    grid: ask_options.Grid = None
    use: ask_options.UseInputs = "auto"


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status is 1 if rows could not be answered."""
    options = command_line.parse(tyro.cli, AskBatch, "pipelines.ask_batch", argv)
    command_line.require_file("FILE", options.questions)
    has_options = options.options or options.options_file
    shared = tuple(ask_options.listed_options(options.options, options.options_file)) if has_options else ()
    ask_options.check_options(shared)
    rows = list({row.key(): row for row in read_questions(options.questions, shared)}.values())
    lines = read_lines(options.out)
    settings = {"checkpoint": options.checkpoint, "use": options.use}
    _require_same_settings(options.out, lines, settings)
    done = {line["key"] for line in lines if "answers" in line}
    pending = {row.key(): row for row in rows if row.key() not in done}
    if pending:
        ask_options.check_checkpoint(options.checkpoint)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    before = len(rows) - len(pending)
    console.print(f"{len(rows)} questions, {before} answered before")
    if others := len({line["key"] for line in lines} - {row.key() for row in rows}):
        console.print(f"{options.out} keeps {others} lines of other questions")
    failed = 0
    if pending:
        from pipelines.inference.rows import answer_rows
        from pipelines.inference.weights import load_weights

        model = load_weights(options.checkpoint, options.grid)
        # Remove the lines of failed rows before they are retried, and incomplete lines of a killed command.
        write_lines(options.out, [line for line in lines if line["key"] not in pending])
        for line in answer_rows(model, list(pending.values()), options.use):
            failed += "error" in line
            filesystem.append_line(options.out, json.dumps(line | settings).encode())
    console.print(
        f"{len(pending) - failed} answered now, {before} before, {failed} failed"
        + (f": see 'error' in {options.out}; the same command retries them" if failed else "")
    )
    return 1 if failed else 0


def _require_same_settings(out: str, lines: list[dict], settings: dict[str, str]) -> None:
    """Raise `UsageError` if lines of an output were written with other settings."""
    for line in lines:
        for name, value in settings.items():
            if line.get(name, value) != value:
                raise UsageError(f"{out!r} was created with --{name} {line[name]}, not {value}; choose another --out")


if __name__ == "__main__":
    sys.exit(run_command(main))
