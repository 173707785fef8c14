"""The demo: the whole chain on videos made on this machine, each step a command a person could type.

Nothing is hidden in here: the steps and their minutes are printed first, every command as it is run, and `--out` holds
what it made.
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
from typing import NamedTuple

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
"""Pixels of a side; the tiny model sees 64."""
FRAMES_PER_SECOND = 5
STRETCHES = 16
HEARING_TEXT_RATE = 0.2
"""How often a span beside a masked one is text in the second stage; 0.8 in the first, as published."""
VALIDATION_QUESTIONS = 300
FINETUNING_BATCH = 16
STARTS = ("from-the-demo", "from-nothing")
"""The finetuning runs, by the weights they start from."""
SPLITS = {"train": "train", "val": "validation", "questions": "questions"}
"""The splits of the data folder and the folders of the corpus they are made from."""


@dataclass(frozen=True)
class Options:
    """Make narrated videos, turn them into shards, look into them, pretrain, and ask what the model has learned."""

    out: str = "demo"
    """Folder for everything the demo makes; a second run continues it."""
    videos: int = 64
    """Videos of the embedded corpus; of every 8, 6 are for training, 1 for validation and 1 for questions."""
    steps: int = 1_000
    """Steps of pretraining."""
    final_scale: float = 0.1
    """Share of the learning rate that is left at the last of them; it falls evenly."""
    hearing_steps: int = 0
    """Steps of a second stage, in which most spans beside a masked one are heard and not read."""
    evaluations: int = 2
    """Evaluations on the validation videos along each stage, the last one at its end."""
    questions: int = 800
    """Multiple-choice questions to finetune on."""
    epochs: int = 3
    """Epochs of finetuning."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = command_line.parse(tyro.cli, Options, "pipelines.demo", argv)
    if 0 < options.hearing_steps < TINY.optimizer.warmup_steps:
        raise UsageError(
            f"--hearing-steps is {options.hearing_steps}; its rate warms up for {TINY.optimizer.warmup_steps} steps, so"
            " give at least as many, or 0"
        )
    console = Console(stderr=True, soft_wrap=True)
    console.print(description(options), highlight=False)
    # What one command compiles, the next takes from here.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(options.out, "compiled").absolute()))
    started = time.monotonic()
    make_corpus, *others = commands(options)
    _run(console, make_corpus)
    write_speech(f"{options.out}/corpus/train", f"{options.out}/speech.txt")
    for command in others:
        _run(console, command)
    console.print(comparison(*(best_evaluation(f"{options.out}/choices/{name}") for name in STARTS)), highlight=False)
    console.print(f"done in {(time.monotonic() - started) / 60:.1f} minutes; look around in {options.out}/")
    return 0


def expected_seconds(options: Options) -> dict[str, float]:
    """What the demo does, and about how many seconds each part takes on two idle cores."""
    updates = options.questions // FINETUNING_BATCH * options.epochs
    return {
        f"make {options.videos} narrated videos and turn them into shards": 15 + 0.5 * options.videos,
        "verify the shards and report on them": 8,
        f"pretrain a small model on them for {options.steps + options.hearing_steps:,} steps": (
            30 + 0.06 * (options.steps + options.hearing_steps) + 2 * options.evaluations
        ),
        "evaluate it on videos that it has not seen, and ask it what they show": 18,
        f"finetune it on {options.questions:,} questions, and a model from nothing to compare": 35 + 0.07 * updates,
    }


def description(options: Options) -> str:
    """The parts of the demo with their minutes, and what it will show."""
    parts = expected_seconds(options)
    lines = [f"the demo takes about {math.ceil(sum(parts.values()) / 60)} minutes on two idle cores:"]
    lines += [f"  {seconds / 60:4.1f} min  {part}" for part, seconds in parts.items()]
    return "\n".join(
        [
            *lines,
            "It shows that the loss leaves its plateau, how often partners are recognised in videos held out, which",
            "questions about them are answered without finetuning, and whether pretraining helps finetuning; chance is",
            f"beside each figure. Everything is written to {options.out}/, and the same command continues there.",
        ]
    )


def commands(options: Options) -> list[Command]:
    """Every command of the demo in order; the second one needs the speech of the corpus, which the first one makes."""
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
    """Make the corpus, a vocabulary from its speech, and shards of every split."""
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
            # A stretch of the corpus holds about ten words; the published rule wants YouTube's density.
            *("--min-words-per-30s", "20"),
        )


def _pretrain(options: Options) -> Iterator[Command]:
    """Pretrain in one stage or two, and draw the curves of each."""
    run, hearing = f"{options.out}/run", f"{options.out}/hearing"
    yield from _stage(options, run, options.steps, *_falling_rate(options.steps, options.final_scale))
    if options.hearing_steps:
        # What is seen is learned first, from words around it; sound is learned once fewer of them compete with it.
        slower = ("--optimizer.learning-rate", "5e-4", *_falling_rate(options.hearing_steps, 0.1))
        heard = ("--init", f"{run}/export", "--input.neighbour-text-rate", str(HEARING_TEXT_RATE))
        yield from _stage(options, hearing, options.hearing_steps, *heard, *slower)


def _falling_rate(steps: int, final_scale: float) -> tuple[str, ...]:
    if final_scale == 1:
        return ()
    # The schedule warms up within its steps, and a run of fewer ends before it falls.
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
    """Answer questions about what the videos show, from the weights of the demo and, to compare, from none."""
    place = f"{options.out}/choices"
    for split, folder, count in (("train", "train", options.questions), ("val", "validation", VALIDATION_QUESTIONS)):
        lines, truth = f"{place}/{split}.jsonl", f"{options.out}/corpus/{folder}"
        yield "pipelines.demo.choices", "--truth", truth, "--out", lines, "--questions", str(count)
        yield (
            "pipelines.choices",
            *("--data", lines, "--media", truth, "--out", f"{place}/data", "--split", split, "--shards", "4"),
            *("--tokenizer", f"{options.out}/tokenizer.json"),
        )
    # Their questions are about frames alone: what the second stage of pretraining learns is no help.
    for name, init in zip(STARTS, (f"{options.out}/run", "random:tiny"), strict=True):
        yield (
            "train.finetune",
            *("choices", "--data", f"{place}/data", "--init", init, "--workdir", f"{place}/{name}"),
            *("--epochs", str(options.epochs), "--batch-size", str(FINETUNING_BATCH), "--learning-rate", "1e-3"),
            *("--warmup-epochs", "0.2", "--dtype", "float32", "--moments", "float32"),
            *("--input.grid", "4", "4", "--input.text-length", "32", "--input.no-random-scale"),
        )


class BestEvaluation(NamedTuple):
    """The best epoch of a finetuning run: its share of right answers, of how many questions, and trivial shares."""

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
    """Say how both finetuned models stand beside chance and the majority answer, and whether pretraining helped.

    It helped if its interval is above the other's share.
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
    """Write the words of every automatic track in `folder`, a line each, as text to train a vocabulary on."""
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
        raise UserError(f"this step of the demo ended with status {status}; its own message is above")


if __name__ == "__main__":
    sys.exit(run_command(main))
