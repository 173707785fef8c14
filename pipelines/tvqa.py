"""Convert TVQA in its official layout into shards of questions.

python -m pipelines.tvqa --data tvqa --out OUT --split train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ingest.questions.preparation import TVQA_FILES, TVQA_QUESTIONS, TvqaPreparation
from pipelines.questions import options as question_options
from pipelines.runner.command import run_and_leave


@dataclass(frozen=True)
class TvqaOptions(question_options.QuestionOptions):
    """Convert TVQA questions, frames, audio and subtitles into verified shards.

    Run the command once per split; run it again to resume a stopped job. All flags of Beam are accepted, such as
    --runner or --direct_num_workers.
    """

    data: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The official folder: tvqa_qa_release, tvqa_subtitles and tvqa_frames."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "train"
    """The split: train, val, or test, which is the public test split."""
    preparation: TvqaPreparation = field(default_factory=TvqaPreparation)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options, flags = question_options.parse(TvqaOptions, "pipelines.tvqa", argv)
    question_options.require_split(options.split, tuple(TVQA_FILES), "TVQA")
    lines = str(Path(options.data) / TVQA_QUESTIONS / TVQA_FILES[options.split])
    question_options.require_questions(lines)
    from pipelines.questions import job as questions
    from pipelines.questions.preparers import TvqaPreparer

    labelled = options.split != question_options.TEST
    preparer = TvqaPreparer(options.data, options.tokenizer, labelled, options.preparation)
    return questions.prepare(questions.job_of(options, lines, preparer), flags)


if __name__ == "__main__":
    run_and_leave(main)
