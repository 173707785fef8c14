"""A multiple-choice set from the corpus' truth: what colour, shape or motion does a stretch of a video show?

The lines are what `pipelines.choices` takes of anybody's data. Only what frames show is asked, and frames are all that
is prepared of the videos, so what a model answers it has seen.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from pipelines.demo.scenes import ATTRIBUTES
from shards import command_line
from shards.command_line import run_command
from shards.storage import filesystem
from shards.storage.errors import UsageError
from shards.storage.randomness import generator

SEEN = ("colour", "shape", "motion")
"""The attributes that frames show; the fourth is only heard."""


@dataclass(frozen=True)
class Options:
    """Write questions about the videos of one folder of the corpus."""

    truth: str
    """A folder of the corpus, with truth files."""
    out: str
    """The JSONL file to write; paths in it are relative to the folder of --truth."""
    questions: int = 600
    """How many, drawn from all."""
    seed: int = 0


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = command_line.parse(tyro.cli, Options, "pipelines.demo.choices", argv)
    command_line.require_folder("--truth", options.truth)
    if options.questions < 1:
        raise UsageError(f"--questions {options.questions} must be at least 1")
    every = all_questions(options.truth)
    if not every:
        raise UsageError(f"{options.truth!r} holds no truth files; give a folder of the corpus")
    rng = generator(options.seed, "choices", Path(options.truth).name)
    chosen = rng.permutation(len(every))[: options.questions]
    lines = [json.dumps(shuffled(every[i], rng)) for i in chosen]
    filesystem.write_bytes(options.out, ("\n".join(lines) + "\n").encode())
    Console(stderr=True, markup=False).print(f"{len(lines)} questions in {options.out}")
    return 0


def all_questions(truth: str) -> list[dict]:
    """Every question about the stretches of the videos in `truth`, in order, with paths relative to it."""
    found = []
    for path in sorted(Path(truth).glob("*.truth.json")):
        held = json.loads(path.read_text())
        for stretch in held["stretches"]:
            for kind in SEEN:
                answers = list(ATTRIBUTES[kind])
                found.append(
                    {
                        "video": f"{held['id']}.mp4",
                        "start": stretch["start"],
                        "end": stretch["end"],
                        "question": f"the {kind} is",
                        "answers": answers,
                        "label": answers.index(stretch[kind]),
                    }
                )
    return found


def shuffled(question: dict, rng: np.random.Generator) -> dict:
    """The question with its answers in another order, so that no place is the right one."""
    order = rng.permutation(len(question["answers"])).tolist()
    answers = [question["answers"][i] for i in order]
    return question | {"answers": answers, "label": order.index(question["label"])}


if __name__ == "__main__":
    sys.exit(run_command(main))
