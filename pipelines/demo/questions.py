"""Answer zero-shot questions about the corpus: the colour, shape, motion or sound of stretches that the speech omits.

The question videos are processed by the same job as all others; each question of their truth files becomes a prompt
with a mask in its segment, and the options are compared with the model's prediction. Repeating the questions with blank
frames and with silence shows which input the answers depend on.
"""

from __future__ import annotations

import sys

import tyro

from pipelines.demo.options import QuestionOptions
from shards import command_line
from shards.command_line import run_command
from shards.storage.errors import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = command_line.parse(tyro.cli, QuestionOptions, "pipelines.demo.questions", argv)
    command_line.require_data("--data", options.data)
    command_line.require_folder("--truth", options.truth)
    command_line.require_data("--checkpoint", options.checkpoint)
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit} must be at least 1")
    from pipelines.demo.zero_shot import run

    return run(options)


if __name__ == "__main__":
    sys.exit(run_command(main))
