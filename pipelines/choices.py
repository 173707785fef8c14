"""Convert your own multiple-choice questions about images or videos into shards, from one JSONL file per split.

python -m pipelines.choices --data train.jsonl --out OUT --split train
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ingest.questions.preparation import ChoicesPreparation
from pipelines.questions import lines as question_lines
from pipelines.questions import options as question_options
from pipelines.runner.command import run_and_leave
from shards import command_line
from shards.storage.errors import UsageError


@dataclass(frozen=True)
class ChoicesOptions(question_options.QuestionOptions):
    """Convert multiple-choice questions about images or videos into verified shards.

    Run the command once per split; run it again to resume a stopped job. All flags of Beam are accepted, such as
    --runner or --direct_num_workers.
    """

    data: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The JSONL file of one split; `ingest.questions.choices` documents its lines."""
    media: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The folder of the images and videos, to which their paths are relative; by default the folder of --data."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "train"
    """The name of the split, letters and digits; `test` has no labels."""
    preparation: ChoicesPreparation = field(default_factory=ChoicesPreparation)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options, flags = question_options.parse(ChoicesOptions, "pipelines.choices", argv)
    if not (options.split.isascii() and options.split.isalnum()):
        raise UsageError(f"--split {options.split!r} must be letters and digits, because shard names start with it")
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
    """Return the number of options that every question must have: the requested one, or the most common one."""
    if options.preparation.options is not None:
        return options.preparation.options
    common = question_lines.most_common_options(options.data, options.limit)
    if common is None:
        return None
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    others = common.readable - common.lines
    console.print(
        f"{common.options} options per question, as in {common.lines} of {common.readable} lines"
        + (f"; lines with another number are rejected: {others} (--options N sets another one)" if others else "")
    )
    return common.options


if __name__ == "__main__":
    run_and_leave(main)
