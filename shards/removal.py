"""Take videos out of a finished data set, because somebody asked for it.

Only the shards that hold one of the videos are written again, under new names and without the examples that show it;
the manifest changes in one step, and then the old files go. Whoever is interrupted runs the same command again.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from shards import filesystem, generations, manifest
from shards.ledger import Entry, Ledger
from shards.manifest import Manifest, Shard, index_path, stats_path
from shards.records.pretraining import Example, parse_example
from shards.segments import SegmentStore, segments_folder
from shards.sidecar import read_contents
from shards.tfrecord import scan
from shards.writer import write_shard

OUTCOME, KIND = "withdrawn", "failed-final"
"""What the ledger says of a video that was taken out, so that no job takes it up again."""

_WRITER = "removals"
"""The ledger file of removals; small, so that every wave can look into it."""

_REVISION = re.compile(r"(-r(\d+))?\.tfrecord$")


@dataclass(frozen=True)
class Removal:
    """What went: shards written again, examples dropped, and segments of other videos that went with them."""

    videos: int
    shards: int
    examples: int
    other_segments: int


def remove(data: str, ids: Collection[str]) -> Removal:
    """Take every trace of the videos `ids` out of the shards, the store and the remainders, and record it.

    Raises `SidecarError` if a sidecar does not say what its shard holds, `StorageError` if another job is at work.
    """
    wanted = frozenset(ids)
    with filesystem.exclusive(filesystem.join(data, ".lock")):
        held = manifest.load(data)
        _sweep(data, held)
        kept, counts = _rewritten(data, held, wanted)
        store, ledger = SegmentStore(segments_folder(data)), Ledger(data, _WRITER)
        for video in sorted(wanted - withdrawn(data)):
            ledger.append(Entry(video, OUTCOME, KIND, "taken out on request", at=round(time.time(), 3)))
        generations.forget_remainders(data, wanted)
        if kept != held:
            manifest.save(data, kept)
        _sweep(data, kept)
        for video in wanted:
            store.remove(video)
    return counts


def withdrawn(data: str) -> set[str]:
    """The ids that were taken out on request, which nobody may take up again."""
    entries = Ledger(data, _WRITER).own_entries()
    return {video for video, entry in entries.items() if entry.outcome == OUTCOME}


def _rewritten(data: str, held: Manifest, wanted: frozenset[str]) -> tuple[Manifest, Removal]:
    """The manifest without the videos, its new shards written, and what went."""
    shards = examples = others = 0
    found: set[str] = set()
    changed = []
    holders = generations.holders(data, held, wanted)
    for generation in held.generations:
        if generation.number not in holders:
            changed.append(generation)
            continue
        kept: list[Shard] = []
        for shard in generation.shards:
            plan, groups, texts, judged = read_contents(data, shard.name)
            clean = [i for i, group in enumerate(groups) if not any(run.video_id in wanted for run in group)]
            if len(clean) == len(groups):
                kept.append(shard)
                continue
            dropped = [run for i, group in enumerate(groups) if i not in set(clean) for run in group]
            found |= {run.video_id for run in dropped} & wanted
            others += sum(len(run) for run in dropped if run.video_id not in wanted)
            examples += len(groups) - len(clean)
            shards += 1
            if clean:
                name = _next_name(shard.name)
                examples_left = _examples(data, shard, set(clean))
                texts_left = [texts[i] for i in clean] if texts else []
                judged = [g for g in judged if not any(run[0] in wanted for run in g["runs"])]
                groups_left = [groups[i] for i in clean]
                kept.append(write_shard(data, name, plan, groups_left, examples_left, texts_left, judged))
        size = sum(s.examples for s in kept) * held.segments_per_example
        changed.append(dataclasses.replace(generation, shards=kept, segments=size))
    counts = Removal(len(found), shards, examples, others)
    return (dataclasses.replace(held, generations=changed) if shards else held), counts


def _examples(data: str, shard: Shard, kept: set[int]) -> Iterator[Example]:
    path = filesystem.join(data, shard.name)
    with filesystem.open_read(path) as file:
        for number, (_, payload) in enumerate(scan(file, path)):
            if number in kept:
                yield parse_example(payload)


def _next_name(name: str) -> str:
    number = int(_REVISION.search(name)[2] or 0) + 1
    return _REVISION.sub(f"-r{number}.tfrecord", name)


def _sweep(data: str, held: Manifest) -> None:
    """Remove revisions and originals that the manifest does not name (any more)."""
    named = {s.name for s in held.shards()}
    stems = {_REVISION.sub("", name) for name in named} | {f"{g.split}-g{g.number:04d}" for g in held.generations}
    for path in filesystem.list_files(data, ".tfrecord"):
        name = path.rpartition("/")[2]
        stem = _REVISION.sub("", name)
        if name not in named and (stem in stems or stem.rpartition("-")[0] in stems):
            for part in (path, index_path(path), stats_path(path)):
                filesystem.remove(part)
