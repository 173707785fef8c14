"""Ask a video: `python -m pipelines.ask clip.mp4 --prompt "in this video I'll be <|MASK|>" --options "a,b,c"`.

As a library it is three lines: load weights, `read` a video, `answer`. The command prints the options with their
probabilities, as a table or as JSON, and can draw how they change over the video.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from model.config import DEFAULT_GRID, Use
from pipelines import ask_options
from pipelines.ask_options import Part
from shards import command_line
from shards.errors import run_command

if TYPE_CHECKING:
    from model.inference import VideoInputs


@dataclass(frozen=True)
class Ask:
    """Ask a video which option fills the <|MASK|> of a prompt."""

    video: Annotated[str, tyro.conf.Positional]
    """A video file, or an id or address of YouTube."""
    prompt: tuple[str, ...]
    """One or more sentences with one or more <|MASK|>."""
    options: str = ""
    """Answers to choose from, with commas between them."""
    options_file: str | None = None
    """A file with one answer a line."""
    checkpoint: str = "base"
    """base, large, a file, a folder of a run's export, or a gs:// or https:// address."""
    grid: tuple[int, int] | None = None
    """Rows and columns of 16-pixel patches; the checkpoint's own, or 18 32, if not given."""
    part: Annotated[Part, tyro.conf.arg(name="")] = field(default_factory=Part)
    use: Use = "auto"
    """What to use beside the frames: sound, else captions, else nothing; or only what is named."""
    timeline: str | None = None
    """Draw the probabilities over time into this PNG."""
    json: bool = False
    """Print JSON."""
    top: int = 10
    """Rows of the table."""


def read(
    video: str,
    grid: tuple[int, int] = DEFAULT_GRID,
    start: float = 0.0,
    end: float | None = None,
    captions: str | None = None,
) -> VideoInputs:
    """Read a video as the arrays that a model with this grid answers from; see `Part` for the other arguments.

    Raises `ClipError` if it cannot be read or downloaded.
    """
    from pipelines.inference import clips

    return clips.read(video, grid, start, end, captions)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    asked = command_line.parse(tyro.cli, Ask, "pipelines.ask", argv)
    options = ask_options.listed_options(asked.options, asked.options_file)
    ask_options.check_options(options)
    ask_options.check_prompts(asked.prompt)
    ask_options.check_video(asked.video)
    command_line.require_file("--captions", asked.part.captions)
    ask_options.check_checkpoint(asked.checkpoint)
    from pipelines.inference import answers

    return answers.ask(asked, options)


if __name__ == "__main__":
    sys.exit(run_command(main))
