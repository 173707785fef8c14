"""VCR in its official layout becomes shards of questions.

`python -m pipelines.vcr --data vcr1 --out OUT --split train`, then the same for the other splits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ingest.vcr import VcrPreparation
from pipelines import questions
from pipelines.execution import run_and_leave
from pipelines.preparers import VcrPreparer
from shards.errors import UsageError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class VcrOptions(questions.QuestionOptions):
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
    options, beam_options = questions.parse(VcrOptions, "pipelines.vcr", argv)
    if options.split not in SPLITS:
        raise UsageError(f"--split {options.split!r} is none of VCR's: {', '.join(SPLITS)}")
    labelled = options.split != questions.TEST
    preparer = VcrPreparer(options.data, options.tokenizer, labelled, options.preparation)
    lines = str(Path(options.data) / f"{options.split}.jsonl")
    return questions.prepare(questions.job_of(options, lines, preparer), beam_options)


if __name__ == "__main__":
    run_and_leave(main)
