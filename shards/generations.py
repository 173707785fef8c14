"""A data folder grows by generations: what one run makes of videos that no earlier generation holds.

A generation becomes data when the manifest names it, which is the last thing written. Its ledger says how every video
of the run ended; segments too few to fill an example stay in the per-video store and come first in the next generation
of their split.
"""

from __future__ import annotations

import re

from shards import filesystem, manifest
from shards.errors import UserError
from shards.manifest import Generation, Manifest, index_path, stats_path
from shards.packing import Run


def waiting_runs(committed: Manifest | None, split: str) -> list[Run]:
    """The runs of a split that wait to be packed, those of older generations first.

    Raises `UserError` for a manifest that was merged of several folders: no generation can follow there.
    """
    if committed and committed.folders():
        raise UserError(
            f"the manifest was merged of {', '.join(committed.folders())}; add videos to one of these folders, then"
            " merge them again"
        )
    return [Run(*run) for g in (committed.waiting(split) if committed else []) for run in g.remainder]


def commit(data: str, generation: Generation, segments_per_example: int, config: str, tokenizer: str) -> Manifest:
    """Make a generation, whose files are all written, part of the data; committing it again changes nothing.

    Raises `UserError` if another job committed other videos under its number.
    """

    def added(committed: Manifest | None) -> Manifest:
        earlier = committed.generations if committed else []
        same = [g for g in earlier if g.number == generation.number]
        if same == [generation]:
            return committed
        if same:
            raise UserError(
                f"another job committed generation {generation.number} of {data!r} meanwhile; run the same command"
                " again, the videos that are extracted are kept"
            )
        return Manifest(segments_per_example, config, tokenizer, [*earlier, generation])

    return manifest.update(data, added)


def sweep(data: str, committed: Manifest, generation: Generation) -> None:
    """Remove files under the number of a committed generation that are not part of it: an interrupted job left them."""
    named = {name for s in committed.shards() for name in (s.name, index_path(s.name), stats_path(s.name))}
    ours = re.compile(rf"{generation.split}-g{generation.number:04d}-.*\d{{5}}of\d{{5}}\.(tfrecord|index|stats\.json)$")
    for path in filesystem.list_files(data):
        name = path.rpartition("/")[2]
        if ours.match(name) and name not in named:
            filesystem.remove(path)
