"""How long a question takes: cold and warm, per video, per thousand options, and how fast a clip is read.

    python -m benchmarks.ask [--model base|tiny] [--minutes 10]

Weights are random, which costs the same as learned ones. The baseline of asking is the published way: one call of
`embed_video` for every prompt and window, images and sounds encoded again each time. That of reading is one ffmpeg for
every frame and one for the sound.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.ingest import cpu_seconds, published_frames, published_sound, published_spectrograms
from benchmarks.ingest_scale import run_ffmpeg
from ingest import clip
from ingest.segmentation import Window
from model import inference, published
from model.checkpoints import export, write_grid
from model.config import BASE, TINY
from model.inference import VideoInputs
from model.pretrained import Pretrained
from model.reserve import initial_parameters
from pipelines.inference.clips import inputs
from shards.tokenizer import train_tokenizer

ROOT = Path(__file__).parent.parent
FILM = str(ROOT / "tests" / "golden" / "data" / "videos" / "gOldVidA_01.mp4")
PROMPTS = [f"in this {thing} i will be <|MASK|>" for thing in ("video", "film", "lesson", "story")]


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: Literal["base", "tiny"] = "tiny"
    minutes: float = 10.0
    """Length of the clip that is read."""
    runs: int = 3


def weights(folder: Path, size: str) -> None:
    """A checkpoint with random weights and a small vocabulary."""
    tokenizer = train_tokenizer(["in this video i will be cooking playing music reading a book"], 280)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    config = TINY if size == "tiny" else dataclasses.replace(BASE.with_grid((18, 32)), dtype="float32")
    config = dataclasses.replace(config, vocabulary_size=tokenizer.get_vocab_size())
    export(initial_parameters(config, jax.random.key(0)), folder / "ckpt_1")
    write_grid(str(folder), config)


def seconds(work: Callable[[], object], runs: int = 1) -> float:
    """Median wall time."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def published_answers(model: Pretrained, video: VideoInputs, options: list[str]) -> None:
    """Every prompt in every window by one whole call of the network, and the options each time."""
    for prompt in PROMPTS:
        labels = np.asarray(model.get_label_space(options))
        ids = inference.encode_prompt(model, prompt)
        for window in inference.windows(len(video.images)):
            parts = inference.window_inputs(model, video, window, ids)
            chosen = slice(window.start, window.stop)
            sounds = video.audio_clips[chosen].reshape(-1, *video.audio_clips.shape[2:])
            embedded = model.embed_video(video.images[chosen], sounds, parts.tokens, parts.subsegments)
            _ = np.asarray(embedded) @ labels.T


def asking(folder: Path, options: Options) -> Table:
    """Cold and warm answers, videos per minute and thousands of options."""
    command = [sys.executable, "-m", "pipelines.ask", FILM, "--checkpoint", str(folder), "--prompt", PROMPTS[0]]
    environment = os.environ | {"RESERVOIR_CACHE": str(folder / "cache")}

    def once() -> None:
        subprocess.run([*command, "--options", "a,b"], check=True, capture_output=True, cwd=ROOT, env=environment)

    first, second = seconds(once), seconds(once, options.runs)
    model = published.load(folder, grid=None)
    video = inputs(clip.read_clip(FILM), model.config.grid)
    few = ["cooking", "playing music"]
    inference.answer_all(model, video, PROMPTS, few), published_answers(model, video, few)
    ours = seconds(lambda: inference.answer_all(model, video, PROMPTS, few), options.runs)
    theirs = seconds(lambda: published_answers(model, video, few), options.runs)
    many = [f"cooking {i}" for i in range(1000)]
    cache = folder / "labels-cache"
    inference.label_space(model, many[:512], folder / "warm")
    labels = seconds(lambda: inference.label_space(model, many, cache))
    again = seconds(lambda: inference.label_space(model, many, cache))
    table = Table("", "s", "ratio", title=f"{options.model}, {len(video.images)} segments, {len(PROMPTS)} prompts")
    table.add_row("the command, nothing compiled yet", f"{first:.1f}", "")
    table.add_row("the command, compiled before", f"{second:.1f}", "")
    table.add_row("published way: a whole call per prompt and window", f"{theirs:.2f}", "1.0")
    table.add_row("ours: encoded once", f"{ours:.2f}", f"{theirs / ours:.1f}")
    table.add_row("1,000 options, first time", f"{labels:.2f}", "")
    table.add_row("1,000 options, kept on disk", f"{again:.3f}", "")
    return table


def reading(minutes: float, runs: int) -> Table:
    """A long clip at 360p, as the inputs of a model with the 18 x 32 grid."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/clip.mp4"
        run_ffmpeg("-stream_loop", "-1", "-i", FILM, "-t", str(60 * minutes), "-c", "copy", path)
        found = clip.read_clip(path)
        windows = [Window(a, b, 1, []) for a, b in found.times.tolist()]

        def published_way() -> None:
            published_frames(path, windows)
            published_spectrograms(published_sound(path), windows)

        ours = statistics.median(cpu_seconds(lambda: inputs(clip.read_clip(path), (18, 32))) for _ in range(runs))
        theirs = cpu_seconds(published_way)
    length = 60 * minutes
    table = Table("reading a clip", "CPU s", "x real time", "ratio", title=f"{minutes:g} minutes of 360p")
    table.add_row("published way", f"{theirs:.1f}", f"{length / theirs:.0f}", "1.0")
    table.add_row("ours, with patches for the model", f"{ours:.1f}", f"{length / ours:.0f}", f"{theirs / ours:.1f}")
    return table


def main() -> int:
    """Print both tables."""
    options = tyro.cli(Options)
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights(folder, options.model)
        console.print(asking(folder, options))
    console.print(reading(options.minutes, options.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
