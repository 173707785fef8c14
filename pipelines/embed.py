"""Vectors for retrieval: `python -m pipelines.embed DATA_OR_VIDEOS --out embeddings.npz`.

Every segment of a data set, a folder of videos or one video gets the vectors of its frame, its sounds, its words and
of all of them together, with its times. The output is an .npz file or, by its name, a Parquet file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from ingest.ids import video_id
from pipelines.inference import options as ask_options
from shards import command_line
from shards.command_line import run_command
from shards.storage.errors import UsageError

FORMATS = (".npz", ".parquet")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    asked = command_line.parse(tyro.cli, ask_options.Embed, "pipelines.embed", argv)
    if not asked.out.endswith(FORMATS):
        raise UsageError(f"--out {asked.out!r} must end with {' or '.join(FORMATS)}")
    if not Path(asked.source).exists() and video_id(asked.source) is None:
        command_line.require_data("SOURCE", asked.source)
    ask_options.check_checkpoint(asked.checkpoint)
    from pipelines.inference.vectors import run

    return run(asked)


if __name__ == "__main__":
    sys.exit(run_command(main))
