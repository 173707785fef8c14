"""TVQA in its official layout becomes shards of questions.

`python -m pipelines.tvqa --data tvqa --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ingest.questions.preparation import TVQA_FILES, TVQA_QUESTIONS, TvqaPreparation
from pipelines.questions import options as question_options
from pipelines.runner.command import run_and_leave


@dataclass(frozen=True)
class TvqaOptions(question_options.QuestionOptions):
    """Turn TVQA questions, frames, sound and subtitles into verified shards.

    The same command again continues where it was stopped. Every flag of Beam is taken too, such as --runner or
    --direct_num_workers.
    """

    data: str
    """The official folder: tvqa_qa_release, tvqa_subtitles and tvqa_frames."""
    split: str = "train"
    """train, val, or test, which is the public test split."""
    preparation: TvqaPreparation = field(default_factory=TvqaPreparation)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
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
