"""Write multiple-choice questions from the ground truth of the corpus: the colour, shape or motion in a stretch.

The lines have the format of `pipelines.choices`. All questions are about the frames, and only frames are prepared, so a
model can only answer them from images.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from pipelines.demo.scenes import ATTRIBUTES
from shards import command_line
from shards.command_line import run_command
from shards.storage import filesystem
from shards.storage.errors import UsageError
from shards.storage.randomness import generator

VISUAL = ("colour", "shape", "motion")
"""The visual attributes; the fourth one is audible."""


@dataclass(frozen=True)
class Options:
    """Write multiple-choice questions about the videos of one folder of the corpus."""

    truth: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """A folder of the corpus, with truth files."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The JSONL file to write; paths in it are relative to the folder of --truth."""
    questions: int = 600
    """Number of questions, sampled from all."""
    seed: int = 0
    """Seed of the sampling."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = command_line.parse(tyro.cli, Options, "pipelines.demo.choices", argv)
    command_line.require_folder("--truth", options.truth)
    if options.questions < 1:
        raise UsageError(f"--questions {options.questions} must be at least 1")
    candidates = all_questions(options.truth)
    if not candidates:
        raise UsageError(f"{options.truth!r} contains no truth files; give a folder of the corpus")
    rng = generator(options.seed, "choices", Path(options.truth).name)
    chosen = rng.permutation(len(candidates))[: options.questions]
    lines = [json.dumps(shuffled(candidates[i], rng)) for i in chosen]
    filesystem.write_bytes(options.out, ("\n".join(lines) + "\n").encode())
    Console(stderr=True, markup=False).print(f"{len(lines)} questions in {options.out}")
    return 0


def all_questions(truth: str) -> list[dict]:
    """Return all questions about the stretches of the videos in `truth`, in order, with paths relative to it."""
    questions = []
    for path in sorted(Path(truth).glob("*.truth.json")):
        video = json.loads(path.read_text())
        for stretch in video["stretches"]:
            for kind in VISUAL:
                answers = list(ATTRIBUTES[kind])
                questions.append(
                    {
                        "video": f"{video['id']}.mp4",
                        "start": stretch["start"],
                        "end": stretch["end"],
                        "question": f"the {kind} is",
                        "answers": answers,
                        "label": answers.index(stretch[kind]),
                    }
                )
    return questions


def shuffled(question: dict, rng: np.random.Generator) -> dict:
    """Return the question with its answers in random order."""
    order = rng.permutation(len(question["answers"])).tolist()
    answers = [question["answers"][i] for i in order]
    return question | {"answers": answers, "label": order.index(question["label"])}


if __name__ == "__main__":
    sys.exit(run_command(main))
