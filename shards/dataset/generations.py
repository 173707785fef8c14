"""A data folder grows by generations: what one run makes of videos that no earlier generation holds.

A generation becomes data when the manifest names it, which is the last thing written. Its ledger says how every video
of the run ended; segments too few to fill an example stay in the per-video store and come first in the next generation
of their split.
"""

from __future__ import annotations

import re

from shards.dataset import manifest
from shards.dataset.ledger import FOLDER, parts_of
from shards.dataset.manifest import Generation, Manifest, generation_stats_path, index_path, stats_path
from shards.dataset.packing import Run
from shards.storage import filesystem
from shards.storage.errors import UserError

_FILE = re.compile(r"[A-Za-z0-9]+-g(\d{4,})-.*\.(?:tfrecord|index|stats\.json|jsonl)$")


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
        ordered = sorted([*earlier, generation], key=lambda g: g.number)
        return Manifest(segments_per_example, config, tokenizer, ordered)

    return manifest.update(data, added)


def sweep(data: str, committed: Manifest, number: int) -> None:
    """Remove files of generations up to a committed number that are not part of them: interrupted jobs left them."""
    paths = [filesystem.join(data, shard.name) for shard in committed.shards()]
    named = {name for path in paths for name in (path, index_path(path), stats_path(path))}
    for generation in committed.generations:
        named |= {generation_stats_path(data, generation), *parts_of(data, generation)}
    for path in (*filesystem.list_files(data), *filesystem.list_files(filesystem.join(data, FOLDER))):
        written = _FILE.match(path.rpartition("/")[2])
        if written and int(written[1]) <= number and path not in named:
            filesystem.remove(path)
