"""TVQA in its official layout becomes shards of questions.

`python -m pipelines.tvqa --data tvqa --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ingest.tvqa import FILES, QUESTIONS, TvqaPreparation
from pipelines import questions
from pipelines.execution import run_and_leave
from pipelines.preparers import TvqaPreparer
from shards.errors import UsageError


@dataclass(frozen=True)
class TvqaOptions(questions.QuestionOptions):
    """Turn TVQA questions, frames, sound and subtitles into verified shards.

    The same command again continues where it was stopped. Every flag of Beam is taken too, such as --runner or
    --direct_num_workers.
    """

    data: str
    """The official folder: tvqa_qa_release, tvqa_subtitles and tvqa_frames."""
    split: str = "train"
    """train, val or test (the public one)."""
    preparation: TvqaPreparation = field(default_factory=TvqaPreparation)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, beam_options = questions.parse(TvqaOptions, "pipelines.tvqa", argv)
    if options.split not in FILES:
        raise UsageError(f"--split {options.split!r} is none of TVQA's: {', '.join(FILES)}")
    labelled = options.split != questions.TEST
    preparer = TvqaPreparer(options.data, options.tokenizer, labelled, options.preparation)
    lines = str(Path(options.data) / QUESTIONS / FILES[options.split])
    return questions.prepare(questions.job_of(options, lines, preparer), beam_options)


if __name__ == "__main__":
    run_and_leave(main)
