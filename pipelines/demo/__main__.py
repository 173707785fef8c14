"""The demo: the whole chain on videos made on this machine, each step a command a person could type.

Nothing is hidden in here: every step is printed as it is run, and `--out` holds what it made.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from ingest import captions
from shards import filesystem
from shards.errors import UserError, run_command

VOCABULARY = 512
SEGMENTS_PER_EXAMPLE = 8


@dataclass(frozen=True)
class Options:
    """Make narrated videos, turn them into shards, and look into them."""

    out: str = "demo"
    """Folder for everything the demo makes; a second run continues it."""
    videos: int = 40
    """Videos of the embedded corpus."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = tyro.cli(Options, args=argv, prog="python -m pipelines.demo")
    console = Console(stderr=True)
    started = time.monotonic()
    corpus, data = f"{options.out}/corpus", f"{options.out}/data"
    tokenizer, text = f"{options.out}/tokenizer.json", f"{options.out}/speech.txt"
    _run(console, "pipelines.demo.corpus", "--out", corpus, "--videos", str(options.videos))
    write_speech(f"{corpus}/train", text)
    _run(console, "shards", "train-tokenizer", text, "--out", tokenizer, "--vocabulary-size", str(VOCABULARY))
    for split, folder in (("train", "train"), ("val", "validation")):
        _run(
            console,
            "pipelines.preprocess",
            *("--videos", f"{corpus}/{folder}", "--out", data, "--split", split),
            *("--tokenizer", tokenizer, "--timing-model", "none"),
            *("--segments-per-example", str(SEGMENTS_PER_EXAMPLE)),
            # A stretch of the corpus holds about ten words; the published rule wants YouTube's density.
            *("--min-words-per-30s", "20"),
        )
    _run(console, "shards", "stats", data)
    _run(console, "shards", "verify", data)
    _run(console, "shards", "show", data, "--example", "0")
    console.print(f"done in {(time.monotonic() - started) / 60:.1f} minutes; look around in {options.out}/")
    return 0


def write_speech(folder: str, path: str) -> None:
    """Write the words of every automatic track in `folder`, a line each, as text to train a vocabulary on."""
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
