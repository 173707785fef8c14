"""What other thresholds would have kept: the rules played again over the scores in the ledger, without any media.

    python -m pipelines.refilter data --set max_similarity=0.8 min_words_per_30s=40
    python -m pipelines.refilter data --set max_similarity=0.8 --out stricter

The first says what would change. The second also makes the new data set, from segments that were kept
(`preprocess --keep-segments`); it is the one that a new run with these thresholds would make of the same videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ingest.config import FilterConfig
from pipelines import beam_flags
from pipelines.command import run_and_leave
from pipelines.text_options import TextOptions
from pipelines.thresholds import changed
from shards import command_line


@dataclass(frozen=True)
class Options:
    """Play other thresholds over the scores of a data folder."""

    data: tyro.conf.Positional[str]
    """The data folder."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set")]
    """Thresholds as NAME=VALUE, by the names of the flags with underscores; None switches a rule off."""
    out: str | None = None
    """A new data folder to make from the kept segments."""
    embedder: str | None = None
    """The image embedder that the folder was created with, needed unless it is perceptual or none."""
    shard_bytes: int = 128 << 20
    """Size of a shard."""
    keep_segments: bool = False
    """Keep the segments in the new folder too."""
    text: tyro.conf.OmitArgPrefixes[TextOptions] = field(default_factory=TextOptions)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, flags = command_line.parse(tyro.cli, Options, "pipelines.refilter", argv, foreign=beam_flags.FLAGS)
    beam_flags.check(flags)
    changed(FilterConfig(), options.changes)
    command_line.require_folder("DATA", options.data)
    options.text.check()
    options.text.check_paths()
    from pipelines.refiltering import refilter

    return refilter(options, flags)


if __name__ == "__main__":
    run_and_leave(main)
