"""Your own questions about pictures or videos become shards: one JSONL a split, no code.

`python -m pipelines.choices --data train.jsonl --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ingest.questions.preparation import ChoicesPreparation
from pipelines.questions import lines as question_lines
from pipelines.questions import options as question_options
from pipelines.runner.command import run_and_leave
from shards import command_line
from shards.storage.errors import UsageError


@dataclass(frozen=True)
class ChoicesOptions(question_options.QuestionOptions):
    """Turn a JSONL of questions with options about pictures or videos into verified shards.

    The same command again continues where it was stopped. Every flag of Beam is taken too, such as --runner or
    --direct_num_workers.
    """

    data: str
    """The JSONL of one split; `ingest.questions.choices` shows a line."""
    media: str | None = None
    """The folder that the paths of images and videos are relative to and lie in; by default that of the JSONL."""
    split: str = "train"
    """The name of the split, letters and digits; `test` has no labels."""
    preparation: ChoicesPreparation = field(default_factory=ChoicesPreparation)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, flags = question_options.parse(ChoicesOptions, "pipelines.choices", argv)
    if not (options.split.isascii() and options.split.isalnum()):
        raise UsageError(f"--split {options.split!r} must be letters and digits, it starts the shards' names")
    question_options.require_questions(options.data)
    command_line.require_folder("--media", options.media)
    from pipelines.questions import job as questions
    from pipelines.questions.preparers import ChoicesPreparer

    labelled = options.split != question_options.TEST
    folder = options.media or str(Path(options.data).parent)
    preparation = dataclasses.replace(options.preparation, options=options_of(options))
    preparer = ChoicesPreparer(folder, options.tokenizer, labelled, preparation)
    return questions.prepare(questions.job_of(options, options.data, preparer), flags)


def options_of(options: ChoicesOptions) -> int | None:
    """How many options every question must have: as given, or as many as most of the lines that can be read have."""
    if options.preparation.options is not None:
        return options.preparation.options
    found = question_lines.most_common_options(options.data, options.limit)
    if found is None:
        return None
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    differ = found.readable - found.lines
    console.print(
        f"{found.options} options a question, as {found.lines} of {found.readable} lines have"
        + (f"; lines with another number are rejected: {differ} (--options N chooses another one)" if differ else "")
    )
    return found.options


if __name__ == "__main__":
    run_and_leave(main)
