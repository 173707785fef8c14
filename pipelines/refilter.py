"""Apply other filter thresholds to a finished data set, using the scores in its ledger instead of media.

    python -m pipelines.refilter data --set max_similarity=0.8 min_words_per_30s=40
    python -m pipelines.refilter data --set max_similarity=0.8 --out stricter

The first command prints what would change. The second also creates the new data set, from stored segments
(`preprocess --keep-segments`); it equals the result of a new job with these thresholds on the same videos.
"""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from ingest.config import FilterConfig
from pipelines.maintenance.options import RefilterOptions
from pipelines.maintenance.thresholds import changed
from pipelines.runner import beam_flags
from pipelines.runner.command import run_and_leave
from shards import command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options, flags = command_line.parse(tyro.cli, RefilterOptions, "pipelines.refilter", argv, foreign=beam_flags.FLAGS)
    beam_flags.check(flags)
    changed(FilterConfig(), options.changes)
    command_line.require_folder("DATA", options.data)
    options.text.check()
    options.text.check_paths()
    from pipelines.maintenance.refiltering import refilter

    return refilter(options, flags)


if __name__ == "__main__":
    run_and_leave(main)
