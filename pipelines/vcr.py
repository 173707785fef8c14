"""VCR in its official layout becomes shards of questions.

`python -m pipelines.vcr --data vcr1 --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ingest.vcr import VcrPreparation
from pipelines import questions
from pipelines.preparers import VcrPreparer
from shards.errors import UsageError, run_command

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class VcrOptions:
    """Turn VCR questions and their pictures into verified shards.

    The same command again continues where it was stopped. Every flag of Beam is taken too, such as --runner or
    --direct_num_workers.
    """

    data: str
    """The official folder: train.jsonl, val.jsonl, test.jsonl and vcr1images."""
    out: str
    """The data folder that is made or continued; all splits go into one."""
    split: str = "train"
    """train, val or test."""
    tokenizer: str = "published"
    """The vocabulary: published, or a tokenizer.json."""
    shards: int | None = None
    """How many shards; 256 for train and 8 for other splits, but never more than questions."""
    limit: int | None = None
    """Take only so many of the questions."""
    preparation: VcrPreparation = field(default_factory=VcrPreparation)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, beam_options = questions.parse(VcrOptions, "pipelines.vcr", argv)
    if options.split not in SPLITS:
        raise UsageError(f"--split {options.split!r} is none of VCR's: {', '.join(SPLITS)}")
    labelled = options.split != questions.TEST
    preparer = VcrPreparer(options.data, options.tokenizer, labelled, options.preparation)
    job = questions.Job(
        lines=str(Path(options.data) / f"{options.split}.jsonl"),
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
