"""Your own questions about pictures or videos become shards: one JSONL a split, no code.

`python -m pipelines.choices --data train.jsonl --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from ingest.preparation import ChoicesPreparation
from pipelines import question_options
from pipelines.command import run_and_leave
from shards.errors import UsageError


@dataclass(frozen=True)
class ChoicesOptions(question_options.QuestionOptions):
    """Turn a JSONL of questions with options about pictures or videos into verified shards.

    The same command again continues where it was stopped. Every flag of Beam is taken too, such as --runner or
    --direct_num_workers.
    """

    data: str
    """The JSONL of one split; `ingest.choices` shows a line. Paths in it are relative to its folder."""
    split: str = "train"
    """The name of the split, letters and digits; `test` has no labels."""
    preparation: ChoicesPreparation = field(default_factory=ChoicesPreparation)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, flags = question_options.parse(ChoicesOptions, "pipelines.choices", argv)
    if not (options.split.isascii() and options.split.isalnum()):
        raise UsageError(f"--split {options.split!r} must be letters and digits, it starts the shards' names")
    question_options.require_questions(options.data)
    from pipelines import questions
    from pipelines.preparers import ChoicesPreparer

    labelled = options.split != question_options.TEST
    folder = str(Path(options.data).parent)
    preparation = dataclasses.replace(options.preparation, options=options_of(options))
    preparer = ChoicesPreparer(folder, options.tokenizer, labelled, preparation)
    return questions.prepare(questions.job_of(options, options.data, preparer), flags)


def options_of(options: ChoicesOptions) -> int | None:
    """How many options every question must have: as told, or as many as the first line that can be read has."""
    if options.preparation.options is None and Path(options.data).is_file():
        with Path(options.data).open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    return len(json.loads(line)["answers"])
    return options.preparation.options


if __name__ == "__main__":
    run_and_leave(main)
