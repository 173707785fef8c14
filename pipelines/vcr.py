"""VCR in its official layout becomes shards of questions.

`python -m pipelines.vcr --data vcr1 --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ingest.questions.preparation import VcrPreparation
from pipelines.questions import options as question_options
from pipelines.runner.command import run_and_leave

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class VcrOptions(question_options.QuestionOptions):
    """Turn VCR questions and their pictures into verified shards.

    The same command again continues where it was stopped. Every flag of Beam is taken too, such as --runner or
    --direct_num_workers.
    """

    data: str
    """The official folder: train.jsonl, val.jsonl, test.jsonl and vcr1images."""
    split: str = "train"
    """train, val or test."""
    preparation: VcrPreparation = field(default_factory=VcrPreparation)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, flags = question_options.parse(VcrOptions, "pipelines.vcr", argv)
    question_options.require_split(options.split, SPLITS, "VCR")
    lines = str(Path(options.data) / f"{options.split}.jsonl")
    question_options.require_questions(lines)
    from pipelines.questions import job as questions
    from pipelines.questions.preparers import VcrPreparer

    labelled = options.split != question_options.TEST
    preparer = VcrPreparer(options.data, options.tokenizer, labelled, options.preparation)
    return questions.prepare(questions.job_of(options, lines, preparer), flags)


if __name__ == "__main__":
    run_and_leave(main)
