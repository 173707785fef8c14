"""Generations of a data folder: each run adds one generation with the videos that are not in an earlier one.

A generation becomes data when the manifest, which is written last, names it. Its ledger has the outcome of every video
of the run. Segments that do not fill an example remain in the per-video store and are packed first in the next
generation of their split.
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
    """Return the runs of a split that wait to be packed, those of older generations first.

    Raises `UserError` for a merged manifest, to which no generation can be added.
    """
    if committed and committed.folders():
        raise UserError(
            f"the manifest was merged from {', '.join(committed.folders())}; add videos to one of these folders, then"
            " merge them again"
        )
    return [Run(*run) for g in (committed.waiting(split) if committed else []) for run in g.remainder]


def commit(data: str, generation: Generation, segments_per_example: int, config: str, tokenizer: str) -> Manifest:
    """Add a generation, whose files are all written, to the manifest; idempotent.

    Raises `UserError` if another job committed other videos under its number.
    """

    def added(committed: Manifest | None) -> Manifest:
        earlier = committed.generations if committed else []
        same = [g for g in earlier if g.number == generation.number]
        if committed and same == [generation]:
            return committed
        if same:
            raise UserError(
                f"another job committed generation {generation.number} of {data!r}; run the same command again, the"
                " extracted videos are kept"
            )
        ordered = sorted([*earlier, generation], key=lambda g: g.number)
        return Manifest(segments_per_example, config, tokenizer, ordered)

    return manifest.update(data, added)


def sweep(data: str, committed: Manifest, number: int) -> None:
    """Remove files of interrupted jobs: those of generations up to `number` that the manifest does not name."""
    paths = [filesystem.join(data, shard.name) for shard in committed.shards()]
    named = {name for path in paths for name in (path, index_path(path), stats_path(path))}
    for generation in committed.generations:
        named |= {generation_stats_path(data, generation), *parts_of(data, generation)}
    for path in (*filesystem.list_files(data), *filesystem.list_files(filesystem.join(data, FOLDER))):
        written = _FILE.match(path.rpartition("/")[2])
        if written and int(written[1]) <= number and path not in named:
            filesystem.remove(path)
