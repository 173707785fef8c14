"""Learn a timing model for another recogniser: by how much its words are early or late, seen from the words alone.

    python -m pipelines.timing pairs.jsonl --out timing.json

Each line of the pairs is one recording: `{"recognised": [[text, start, end], ...], "aligned": [[text, start, end],
...]}`, the same words at the times of the recogniser and at true ones, for instance from forced alignment. The result
is a file of the published form, for `--timing-model`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from shards import command_line
from shards import tokenizer as vocabulary
from shards.errors import UsageError, run_command


@dataclass(frozen=True)
class Options:
    """Learn by how much a recogniser's words are early or late."""

    pairs: tyro.conf.Positional[str]
    """A file of recordings, one JSON object a line: the words as recognised, and the same words at their true times."""
    out: str
    """The file that the model is written to."""
    tokenizer: str = "published"
    """The vocabulary whose pieces are counted."""
    steps: int = 3000
    """Steps of learning."""
    seed: int = 0
    """Seed of the first weights and of the order."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = command_line.parse(tyro.cli, Options, "pipelines.timing", argv)
    if options.steps < 1:
        raise UsageError(f"--steps {options.steps} must be at least 1")
    command_line.require_file("PAIRS", options.pairs)
    if options.tokenizer != vocabulary.PUBLISHED:
        command_line.require_file("--tokenizer", options.tokenizer)
    from pipelines.timing_training import run

    return run(options)


if __name__ == "__main__":
    sys.exit(run_command(main))
