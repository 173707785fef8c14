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
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from shards import command_line, filesystem
from shards.errors import UsageError, UserError, run_command
from train.config import TINY

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
    console = Console(stderr=True)
    console.print(description(options), highlight=False)
    # What one command compiles, the next takes from here.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(options.out, "compiled").absolute()))
    started = time.monotonic()
    corpus, data = (f"{options.out}/{name}" for name in ("corpus", "data"))
    make_data(console, options, corpus, data)
    _run(console, "shards", "stats", data)
    _run(console, "shards", "verify", data)
    _run(console, "shards", "show", data, "--example", "0")
    _run(console, "shards", "report", data, "--out", f"{options.out}/report")
    run = pretrain(console, options, data)
    _run(console, "train.evaluate", "pretraining", "--data", data, "--checkpoint", run, "--split", "val")
    _run(
        console,
        "pipelines.demo.questions",
        *("--data", data, "--truth", f"{corpus}/questions", "--checkpoint", run),
        *("--out", f"{options.out}/questions.json"),
    )
    # Their questions are about frames alone: what the second stage learns is no help.
    finetune(console, options, corpus, f"{options.out}/run")
    console.print(f"done in {(time.monotonic() - started) / 60:.1f} minutes; look around in {options.out}/")
    return 0


def expected_seconds(options: Options) -> dict[str, float]:
    """What the demo does, and about how many seconds each part takes on two idle cores."""
    updates = options.questions // FINETUNING_BATCH * options.epochs
    return {
        f"make {options.videos} narrated videos and turn them into shards": 20 + 0.6 * options.videos,
        "verify the shards and report on them": 10,
        f"pretrain a small model on them for {options.steps + options.hearing_steps:,} steps": (
            30 + 0.075 * (options.steps + options.hearing_steps) + 5 * options.evaluations
        ),
        "evaluate it on videos that it has not seen, and ask it what they show": 20,
        f"finetune it on {options.questions:,} questions, and a model from nothing to compare": 40 + 0.1 * updates,
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


def make_data(console: Console, options: Options, corpus: str, data: str) -> None:
    """Make the corpus, a vocabulary from its speech, and shards of every split."""
    tokenizer, text = f"{options.out}/tokenizer.json", f"{options.out}/speech.txt"
    _run(
        console,
        "pipelines.demo.corpus",
        *("--out", corpus, "--videos", str(options.videos), "--fps", str(FRAMES_PER_SECOND)),
        *("--shortest", str(STRETCHES), "--longest", str(STRETCHES), "--width", str(PICTURE), "--height", str(PICTURE)),
    )
    write_speech(f"{corpus}/train", text)
    _run(console, "shards", "train-tokenizer", text, "--out", tokenizer, "--vocabulary-size", str(VOCABULARY))
    for split, folder in SPLITS.items():
        _run(
            console,
            "pipelines.preprocess",
            *("--videos", f"{corpus}/{folder}", "--out", data, "--split", split),
            *("--tokenizer", tokenizer, "--timing-model", "none"),
            *("--segments-per-example", str(SEGMENTS_PER_EXAMPLE)),
            # A stretch of the corpus holds about ten words; the published rule wants YouTube's density.
            *("--min-words-per-30s", "20"),
        )


def pretrain(console: Console, options: Options, data: str) -> str:
    """Pretrain in one stage or two, and draw the curves of each; returns the work folder of the last one."""
    run, hearing = f"{options.out}/run", f"{options.out}/hearing"
    _stage(console, options, data, run, options.steps, *_falling_rate(options.steps, options.final_scale))
    if not options.hearing_steps:
        return run
    # What is seen is learned first, from words around it; sound is learned once fewer of them compete with it.
    slower = ("--optimizer.learning-rate", "5e-4", *_falling_rate(options.hearing_steps, 0.1))
    _stage(
        console,
        options,
        data,
        hearing,
        options.hearing_steps,
        *("--init", f"{run}/export", "--input.neighbour-text-rate", str(HEARING_TEXT_RATE)),
        *slower,
    )
    return hearing


def _falling_rate(steps: int, final_scale: float) -> tuple[str, ...]:
    if final_scale == 1:
        return ()
    return "--optimizer.total-steps", str(steps), "--optimizer.final-scale", str(final_scale)


def _stage(console: Console, options: Options, data: str, workdir: str, steps: int, *settings: str) -> None:
    _run(
        console,
        "train.pretrain",
        *("tiny", "--data", data, "--workdir", workdir, "--steps", str(steps)),
        *settings,
        *("--evaluate-every", str(max(steps // options.evaluations, 1)), "--log-every", "50"),
    )
    _run(console, "pipelines.demo.curves", workdir, "--out", f"{workdir}-curves.png")


def finetune(console: Console, options: Options, corpus: str, run: str) -> None:
    """Answer questions about what the videos show, from the weights of the demo and, to compare, from none."""
    place = f"{options.out}/choices"
    for split, folder, count in (("train", "train", options.questions), ("val", "validation", VALIDATION_QUESTIONS)):
        lines = f"{place}/{split}.jsonl"
        _run(
            console,
            "pipelines.demo.choices",
            *("--truth", f"{corpus}/{folder}", "--out", lines, "--questions", str(count)),
        )
        _run(
            console,
            "pipelines.choices",
            *("--data", lines, "--out", f"{place}/data", "--split", split, "--shards", "4"),
            *("--tokenizer", f"{options.out}/tokenizer.json"),
        )
    for name, init in (("from-the-demo", run), ("from-nothing", "random:tiny")):
        _run(
            console,
            "train.finetune",
            *("choices", "--data", f"{place}/data", "--init", init, "--workdir", f"{place}/{name}"),
            *("--epochs", str(options.epochs), "--batch-size", str(FINETUNING_BATCH), "--learning-rate", "1e-3"),
            *("--warmup-epochs", "0.2", "--dtype", "float32", "--moments", "float32"),
            *("--input.grid", "4", "4", "--input.text-length", "32", "--input.no-random-scale"),
        )
    console.print("guessing is right in one of six questions")


def write_speech(folder: str, path: str) -> None:
    """Write the words of every automatic track in `folder`, a line each, as text to train a vocabulary on."""
    from ingest import captions

    lines = []
    for track in sorted(Path(folder).glob("*.en.vtt")):
        lines.append(" ".join(word.text for word in captions.read(track.read_text(), "vtt").words))
    filesystem.write_bytes(path, "\n".join(lines).encode())


def _run(console: Console, module: str, *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    console.print(f"\n[bold]$ python -m {module} {shlex.join(arguments)}[/bold]")
    status = subprocess.run(command, check=False).returncode
    if status:
        raise UserError(f"this step of the demo ended with status {status}; its own message is above")


if __name__ == "__main__":
    sys.exit(run_command(main))
