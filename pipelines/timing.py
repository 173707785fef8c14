"""Train a timing model for another speech recogniser, which predicts the errors of its word times from the words.

    python -m pipelines.timing pairs.jsonl --out timing.json

Each line of the pairs is one recording: `{"recognised": [[text, start, end], ...], "aligned": [[text, start, end],
...]}`, the same words with the times of the recogniser and with true times, for instance from forced alignment. The
output has the published format and can be used with `--timing-model`.
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
    """Run the command and return its exit status."""
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
