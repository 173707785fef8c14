"""Many questions about many videos: a CSV in, one line of JSON for each of its rows out.

    python -m pipelines.ask_batch questions.csv --out answers.jsonl --options-file answers.txt

The CSV has the columns `video` and `prompt`, and may have `options` (separated by `|`), `start` and `end`. Rows that
the output has already are not asked again, so a stopped command continues; a row that cannot be answered gets its
reason.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from model.config import Use
from pipelines import ask_options
from pipelines.inference.questions import answered, read_questions
from shards import command_line, filesystem
from shards.errors import run_command


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


def main(argv: list[str] | None = None) -> int:
    """The command; exit status 1 if rows could not be answered."""
    asked = command_line.parse(tyro.cli, AskBatch, "pipelines.ask_batch", argv)
    command_line.require_file("QUESTIONS", asked.questions)
    given = asked.options or asked.options_file
    shared = tuple(ask_options.listed_options(asked.options, asked.options_file)) if given else ()
    rows = read_questions(asked.questions, shared)
    done = answered(asked.out)
    waiting = [row for row in rows if row.key() not in done]
    if waiting:
        ask_options.check_checkpoint(asked.checkpoint)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{len(rows)} questions, {len(rows) - len(waiting)} answered before")
    failed = 0
    if waiting:
        from pipelines.inference.rows import answer_rows
        from pipelines.weights import load_weights

        model = load_weights(asked.checkpoint, asked.grid)
        for line in answer_rows(model, waiting, asked.use):
            failed += "error" in line
            filesystem.append_line(asked.out, json.dumps(line).encode())
    console.print(f"{len(waiting) - failed} answered now, {failed} not: see 'error' in {asked.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
