"""Vectors for retrieval: `python -m pipelines.embed DATA_OR_VIDEOS --out embeddings.npz`.

Every segment of a data set, a folder of videos or one video gets the vectors of its frame, its sounds, its words and
of all of them together, with its times. The output is an .npz file or, by its name, a Parquet file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ingest.ids import video_id
from model.config import Use
from pipelines import ask_options
from shards import command_line
from shards.errors import UsageError, run_command

FORMATS = (".npz", ".parquet")


@dataclass(frozen=True)
class Embed:
    """Write the vectors of every segment."""

    source: Annotated[str, tyro.conf.Positional]
    """A data folder or shard, a folder of videos, a video file, or an id or address of YouTube."""
    out: str
    """The .npz or .parquet file to write."""
    checkpoint: str = "base"
    """As for `pipelines.ask`."""
    grid: tuple[int, int] | None = None
    """As for `pipelines.ask`."""
    use: Use = "auto"
    """What goes into the joint vector beside the frames."""
    split: str | None = None
    """The split of a data set."""
    limit: int | None = None
    """Only so many videos, or runs of a video in a data set."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    asked = command_line.parse(tyro.cli, Embed, "pipelines.embed", argv)
    if not asked.out.endswith(FORMATS):
        raise UsageError(f"--out {asked.out!r} must end with {' or '.join(FORMATS)}")
    if not Path(asked.source).exists() and video_id(asked.source) is None:
        command_line.require_data("SOURCE", asked.source)
    ask_options.check_checkpoint(asked.checkpoint)
    from pipelines.inference.vectors import run

    return run(asked)


if __name__ == "__main__":
    sys.exit(run_command(main))
