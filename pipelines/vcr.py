"""Convert VCR in its official layout into shards of questions.

python -m pipelines.vcr --data vcr1 --out OUT --split train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ingest.questions.preparation import VcrPreparation
from pipelines.questions import options as question_options
from pipelines.runner.command import run_and_leave

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class VcrOptions(question_options.QuestionOptions):
    """Convert VCR questions and their images into verified shards.

    Run the command once per split; run it again to resume a stopped job. All flags of Beam are accepted, such as
    --runner or --direct_num_workers.
    """

    data: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The official folder: train.jsonl, val.jsonl, test.jsonl and vcr1images."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "train"
    """The split: train, val or test."""
    preparation: VcrPreparation = field(default_factory=VcrPreparation)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
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
