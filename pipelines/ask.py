"""Answer questions about a video.

    python -m pipelines.ask clip.mp4 --prompt "in this video I'll be <|MASK|>" --options "a,b,c"

The command prints the options with their probabilities, as a table or as JSON, and can draw how they change over the
video. In a program, load weights, `read` a video and call `answer`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import tyro

from model.config import DEFAULT_GRID
from pipelines.inference import options as ask_options
from shards import command_line
from shards.command_line import run_command

if TYPE_CHECKING:
    from model.inference import VideoInputs


def read(
    video: str,
    grid: tuple[int, int] = DEFAULT_GRID,
    start: float = 0.0,
    end: float | None = None,
    captions: str | None = None,
) -> VideoInputs:
    """Read a video as input arrays of a model with this grid; see `Part` for the other arguments.

    Raises `ClipError` if it cannot be read or downloaded.
    """
    from pipelines.inference import clips

    return clips.read(video, grid, start, end, captions)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = command_line.parse(tyro.cli, ask_options.Ask, "pipelines.ask", argv)
    choices = ask_options.listed_options(options.options, options.options_file)
    ask_options.check_options(choices)
    ask_options.check_prompts(options.prompt)
    ask_options.check_video(options.video)
    command_line.require_file("--captions", options.part.captions)
    ask_options.check_checkpoint(options.checkpoint)
    from pipelines.inference import answers

    return answers.ask(options, choices)


if __name__ == "__main__":
    sys.exit(run_command(main))
