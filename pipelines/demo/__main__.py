"""Run the whole pipeline on videos generated on this machine, as a sequence of ordinary commands.

The steps and their expected durations are printed first, then every command as it is run; all output is in `--out`.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.console import Console

from shards import command_line
from shards.command_line import run_command
from shards.storage import filesystem, python_process
from shards.storage.errors import UsageError, UserError
from train.configs.tiny import CONFIG as TINY
from train.metrics.formatting import EVALUATIONS_NAME, MetricsLog
from train.metrics.intervals import wilson

Command = tuple[str, ...]
"""A module and its arguments."""

VOCABULARY = 512
SEGMENTS_PER_EXAMPLE = 4
PICTURE = 96
"""Side length of the frames in pixels; the tiny model's input has 64."""
FRAMES_PER_SECOND = 5
STRETCHES = 16
HEARING_TEXT_RATE = 0.2
"""The rate of text spans beside a masked span in the second stage; 0.8 in the first, as published."""
VALIDATION_QUESTIONS = 300
FINETUNING_BATCH = 16
STARTS = ("from-the-demo", "from-nothing")
"""The finetuning runs, by their initial weights."""
SPLITS = {"train": "train", "val": "validation", "questions": "questions"}
"""The splits of the data folder and their folders of the corpus."""


@dataclass(frozen=True)
class Options:
    """Run the whole pipeline: generate videos, convert them into shards, inspect, pretrain, evaluate and finetune."""

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "demo"
    """The folder for all output; run the command again to resume."""
    videos: int = 64
    """Number of generated videos; of every 8, 6 are for training, 1 for validation and 1 for questions."""
    steps: int = 1_000
    """Number of pretraining steps."""
    final_scale: float = 0.1
    """Final learning rate as a share of the peak; it decays linearly."""
    hearing_steps: int = 0
    """Number of steps of a second stage, in which most spans beside a masked one are audio instead of text."""
    evaluations: int = 2
    """Number of evaluations on the validation videos per stage, the last one at its end."""
    questions: int = 800
    """Number of multiple-choice questions for finetuning."""
    epochs: int = 3
    """Number of finetuning epochs."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = command_line.parse(tyro.cli, Options, "pipelines.demo", argv)
    if 0 < options.hearing_steps < TINY.optimizer.warmup_steps:
        raise UsageError(
            f"--hearing-steps {options.hearing_steps} must be 0 or at least {TINY.optimizer.warmup_steps}, the steps of"
            " warmup"
        )
    console = Console(stderr=True, soft_wrap=True)
    console.print(description(options), highlight=False)
    # The commands share compiled programs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(options.out, "compiled").absolute()))
    start = time.monotonic()
    make_corpus, *others = commands(options)
    _run(console, make_corpus)
    write_speech(f"{options.out}/corpus/train", f"{options.out}/speech.txt")
    for command in others:
        _run(console, command)
    console.print(comparison(*(best_evaluation(f"{options.out}/choices/{name}") for name in STARTS)), highlight=False)
    console.print(f"done in {(time.monotonic() - start) / 60:.1f} minutes; the output is in {options.out}/")
    return 0


def expected_seconds(options: Options) -> dict[str, float]:
    """Return the parts of the demo with their approximate durations in seconds on two idle cores."""
    updates = options.questions // FINETUNING_BATCH * options.epochs
    return {
        f"generate {options.videos} narrated videos and convert them into shards": 15 + 0.5 * options.videos,
        "verify the shards and report on them": 8,
        f"pretrain a small model on them for {options.steps + options.hearing_steps:,} steps": (
            30 + 0.06 * (options.steps + options.hearing_steps) + 2 * options.evaluations
        ),
        "evaluate it on held-out videos, and with questions about their content": 18,
        f"finetune it on {options.questions:,} questions, and a randomly initialised model for comparison": 35
        + 0.07 * updates,
    }


def description(options: Options) -> str:
    """Return a description of the demo: its parts with their durations, and its results."""
    parts = expected_seconds(options)
    lines = [f"the demo takes about {math.ceil(sum(parts.values()) / 60)} minutes on two idle cores:"]
    lines += [f"  {seconds / 60:4.1f} min  {part}" for part, seconds in parts.items()]
    return "\n".join(
        [
            *lines,
            "It shows that the loss leaves its plateau, the contrastive accuracy on held-out videos, the accuracy of",
            "zero-shot answers about them, and whether pretraining helps finetuning, each compared with chance.",
            f"All output is written to {options.out}/; the same command resumes a stopped run.",
        ]
    )


def commands(options: Options) -> list[Command]:
    """Return all commands in order; `write_speech` must run after the first one, which generates the corpus."""
    out = options.out
    data, trained = f"{out}/data", f"{out}/hearing" if options.hearing_steps else f"{out}/run"
    return [
        *_make_data(options),
        ("shards", "stats", data),
        ("shards", "verify", data),
        ("shards", "show", data, "--example", "0"),
        ("shards", "report", data, "--out", f"{out}/report"),
        *_pretrain(options),
        ("train.evaluate", "pretraining", "--data", data, "--checkpoint", trained, "--split", "val"),
        (
            "pipelines.demo.questions",
            *("--data", data, "--truth", f"{out}/corpus/questions", "--checkpoint", trained),
            *("--out", f"{out}/questions.json"),
        ),
        *_finetune(options),
    ]


def _make_data(options: Options) -> Iterator[Command]:
    """Generate the corpus, a tokenizer trained on its speech, and shards of every split."""
    corpus, tokenizer = f"{options.out}/corpus", f"{options.out}/tokenizer.json"
    yield (
        "pipelines.demo.corpus",
        *("--out", corpus, "--videos", str(options.videos), "--fps", str(FRAMES_PER_SECOND)),
        *("--shortest", str(STRETCHES), "--longest", str(STRETCHES), "--width", str(PICTURE), "--height", str(PICTURE)),
    )
    size = str(VOCABULARY)
    yield "shards", "train-tokenizer", f"{options.out}/speech.txt", "--out", tokenizer, "--vocabulary-size", size
    for split, folder in SPLITS.items():
        yield (
            "pipelines.preprocess",
            *("--videos", f"{corpus}/{folder}", "--out", f"{options.out}/data", "--split", split),
            *("--tokenizer", tokenizer, "--timing-model", "none"),
            *("--segments-per-example", str(SEGMENTS_PER_EXAMPLE)),
            # A stretch of the corpus has about ten words; the published threshold fits the density of YouTube videos.
            *("--min-words-per-30s", "20"),
        )


def _pretrain(options: Options) -> Iterator[Command]:
    """Pretrain in one or two stages, and draw the curves of each."""
    run, hearing = f"{options.out}/run", f"{options.out}/hearing"
    yield from _stage(options, run, options.steps, *_falling_rate(options.steps, options.final_scale))
    if options.hearing_steps:
        # The model learns images first, from the words around them, and audio once fewer words compete with it.
        rate = ("--optimizer.learning-rate", "5e-4", *_falling_rate(options.hearing_steps, 0.1))
        inputs = ("--init", f"{run}/export", "--input.neighbour-text-rate", str(HEARING_TEXT_RATE))
        yield from _stage(options, hearing, options.hearing_steps, *inputs, *rate)


def _falling_rate(steps: int, final_scale: float) -> tuple[str, ...]:
    if final_scale == 1:
        return ()
    # The schedule includes the warmup; a shorter run ends before the decay.
    steps = max(steps, TINY.optimizer.warmup_steps)
    return "--optimizer.total-steps", str(steps), "--optimizer.final-scale", str(final_scale)


def _stage(options: Options, workdir: str, steps: int, *settings: str) -> Iterator[Command]:
    yield (
        "train.pretrain",
        *("tiny", "--data", f"{options.out}/data", "--workdir", workdir, "--steps", str(steps)),
        *settings,
        *("--evaluate-every", str(max(steps // options.evaluations, 1)), "--log-every", "50"),
    )
    yield "pipelines.demo.curves", workdir, "--out", f"{workdir}-curves.png"


def _finetune(options: Options) -> Iterator[Command]:
    """Finetune on questions about the videos, from the demo's weights and, for comparison, from random ones."""
    folder_of_choices = f"{options.out}/choices"
    for split, folder, count in (("train", "train", options.questions), ("val", "validation", VALIDATION_QUESTIONS)):
        lines, truth = f"{folder_of_choices}/{split}.jsonl", f"{options.out}/corpus/{folder}"
        yield "pipelines.demo.choices", "--truth", truth, "--out", lines, "--questions", str(count)
        yield (
            "pipelines.choices",
            *("--data", lines, "--media", truth, "--out", f"{folder_of_choices}/data", "--split", split),
            *("--shards", "4", "--tokenizer", f"{options.out}/tokenizer.json"),
        )
    # The questions are about frames only, so the second stage of pretraining does not help.
    for name, init in zip(STARTS, (f"{options.out}/run", "random:tiny"), strict=True):
        yield (
            "train.finetune",
            *("choices", "--data", f"{folder_of_choices}/data", "--init", init),
            *("--workdir", f"{folder_of_choices}/{name}"),
            *("--epochs", str(options.epochs), "--batch-size", str(FINETUNING_BATCH), "--learning-rate", "1e-3"),
            *("--warmup-epochs", "0.2", "--dtype", "float32", "--moments", "float32"),
            *("--input.grid", "4", "4", "--input.text-length", "32", "--input.no-random-scale"),
        )


class BestEvaluation(NamedTuple):
    """The best epoch of a finetuning run: its accuracy, the number of questions, and accuracies of trivial answers."""

    share: float
    questions: int
    chance: float
    majority: float


def best_evaluation(workdir: str) -> BestEvaluation:
    """Read the best evaluation of a finetuning run."""
    lines = MetricsLog(f"{workdir}/{EVALUATIONS_NAME}").lines()
    names = ("val/joint", "val/questions", "val/chance/joint", "val/majority/joint")
    return max(BestEvaluation(*(line[name] for name in names)) for line in lines)


def comparison(pretrained: BestEvaluation, fresh: BestEvaluation) -> str:
    """Return a sentence that compares both finetuned models with chance and the majority answer.

    Pretraining helped if its confidence interval is above the accuracy without pretraining.
    """
    intervals = [wilson(one.share, one.questions) for one in (pretrained, fresh)]
    shares = [
        f"{one.share:.1%} ({low:.1%} to {high:.1%})"
        for one, (low, high) in zip((pretrained, fresh), intervals, strict=True)
    ]
    helps = intervals[0][0] > fresh.share
    verdict = "pretraining helps" if helps else "pretraining does not show at this length; make learn trains longer"
    floors = f"chance {fresh.chance:.1%}, the most frequent answer {fresh.majority:.1%}"
    return f"finetuned from the demo {shares[0]}, from nothing {shares[1]}, {floors}: {verdict}"


def write_speech(folder: str, path: str) -> None:
    """Write the words of every automatic track in `folder`, one track per line, as training text of a tokenizer."""
    from ingest import captions

    lines = []
    for track in sorted(Path(folder).glob("*.en.vtt")):
        lines.append(" ".join(word.text for word in captions.read(track.read_text(), "vtt").words))
    filesystem.write_bytes(path, "\n".join(lines).encode())


def _run(console: Console, command: Command) -> None:
    console.print(f"\n[bold]$ python -m {shlex.join(command)}[/bold]")
    status = subprocess.run(
        python_process.command(*command), env=os.environ | python_process.environment(), check=False
    ).returncode
    if status:
        raise UserError(f"this step of the demo failed with status {status}; its message is above")


if __name__ == "__main__":
    sys.exit(run_command(main))
