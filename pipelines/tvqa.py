"""TVQA in its official layout becomes shards of questions.

`python -m pipelines.tvqa --data tvqa --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ingest.tvqa import FILES, QUESTIONS, TvqaPreparation
from pipelines import questions
from pipelines.preparers import TvqaPreparer
from shards.errors import UsageError, run_command


@dataclass(frozen=True)
class TvqaOptions:
    """Turn TVQA questions, frames, sound and subtitles into verified shards.

    The same command again continues where it was stopped. Every flag of Beam is taken too, such as --runner or
    --direct_num_workers.
    """

    data: str
    """The official folder: tvqa_qa_release, tvqa_subtitles and tvqa_frames."""
    out: str
    """The data folder that is made or continued; all splits go into one."""
    split: str = "train"
    """train, val or test (the public one)."""
    tokenizer: str = "published"
    """The vocabulary: published, or a tokenizer.json."""
    shards: int | None = None
    """How many shards; 256 for train and 8 for other splits, but never more than questions."""
    limit: int | None = None
    """Take only so many of the questions."""
    preparation: TvqaPreparation = field(default_factory=TvqaPreparation)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, beam_options = questions.parse(TvqaOptions, "pipelines.tvqa", argv)
    if options.split not in FILES:
        raise UsageError(f"--split {options.split!r} is none of TVQA's: {', '.join(FILES)}")
    labelled = options.split != questions.TEST
    preparer = TvqaPreparer(options.data, options.tokenizer, labelled, options.preparation)
    job = questions.Job(
        lines=str(Path(options.data) / QUESTIONS / FILES[options.split]),
        out=options.out,
        split=options.split,
        preparer=preparer,
        tokenizer=options.tokenizer,
        shards=options.shards,
        limit=options.limit,
    )
    return questions.prepare(job, beam_options)


if __name__ == "__main__":
    status = run_command(main)
    sys.stdout.flush()
    sys.stderr.flush()
    # Beam's own threads would wait for workers that a failed job has already ended.
    os._exit(status)
