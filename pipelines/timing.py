"""Learn a timing model for another recogniser: by how much its words are early or late, seen from the words alone.

    python -m pipelines.timing pairs.jsonl --out timing.json

Each line of the pairs is one recording: `{"recognised": [[text, start, end], ...], "aligned": [[text, start, end],
...]}`, the same words at the times of the recogniser and at true ones, for instance from forced alignment. The result
is a file of the published form, for `--timing-model`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from pipelines.maintenance.options import TimingOptions
from shards import command_line
from shards import tokenizer as vocabulary
from shards.command_line import run_command
from shards.storage.errors import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = command_line.parse(tyro.cli, TimingOptions, "pipelines.timing", argv)
    if options.steps < 1:
        raise UsageError(f"--steps {options.steps} must be at least 1")
    command_line.require_file("PAIRS", options.pairs)
    if options.tokenizer != vocabulary.PUBLISHED:
        command_line.require_file("--tokenizer", options.tokenizer)
    from pipelines.maintenance.timing_training import run

    return run(options)


if __name__ == "__main__":
    sys.exit(run_command(main))
