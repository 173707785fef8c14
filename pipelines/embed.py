"""Write embedding vectors of segments, for retrieval.

    python -m pipelines.embed SOURCE --out embeddings.npz

Every segment of a data set, a folder of videos or one video gets vectors of its frame, its audio, its words and of all
of them jointly, with its times. The suffix of the output selects the format, .npz or .parquet.
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
    """Run the command and return its exit status."""
    options = command_line.parse(tyro.cli, ask_options.Embed, "pipelines.embed", argv)
    if not options.out.endswith(FORMATS):
        raise UsageError(f"--out {options.out!r} must end with {' or '.join(FORMATS)}")
    if not Path(options.source).exists() and video_id(options.source) is None:
        command_line.require_data("SOURCE", options.source)
    ask_options.check_checkpoint(options.checkpoint)
    from pipelines.inference.vectors import run

    return run(options)


if __name__ == "__main__":
    sys.exit(run_command(main))
