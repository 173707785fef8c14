"""Take videos out of a finished data set, because somebody asked for it.

Only the shards that hold one of the videos are written again, under new names and without the examples that show it;
the manifest changes in one step, and then the old files go. Whoever is interrupted runs the same command again.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from shards import filesystem, generations, manifest
from shards.errors import UserError
from shards.generations import TextRef
from shards.ledger import Entry, Ledger
from shards.manifest import Manifest, Shard, index_path, stats_path
from shards.packing import Group, Run
from shards.records.pretraining import Example, parse_example
from shards.segments import SegmentStore, segments_folder
from shards.tfrecord import scan
from shards.writer import write_shard

OUTCOME, KIND = "withdrawn", "failed-final"
"""What the ledger says of a video that was taken out, so that no job takes it up again."""

_REVISION = re.compile(r"(-r(\d+))?\.tfrecord$")


class RemovalError(UserError):
    """The videos cannot be taken out; the message says what is missing."""


@dataclass(frozen=True)
class Removal:
    """What went: shards written again, examples dropped, and segments of other videos that went with them."""

    videos: int
    shards: int
    examples: int
    other_segments: int


def remove(data: str, ids: Collection[str]) -> Removal:
    """Take every trace of the videos `ids` out of the shards, the store and the remainders, and record it.

    Raises `RemovalError` if a sidecar does not say what its shard holds, `StorageError` if another job is at work.
    """
    wanted = frozenset(ids)
    with filesystem.exclusive(filesystem.join(data, ".lock")):
        held = manifest.load(data)
        _sweep(data, held)
        kept, counts = _rewritten(data, held, wanted)
        store, ledger = SegmentStore(segments_folder(data)), Ledger(data, "removals")
        entries = ledger.entries()
        for video in sorted(wanted):
            if entries.get(video) is None or entries[video].outcome != OUTCOME:
                ledger.append(Entry(video, OUTCOME, KIND, "taken out on request", at=round(time.time(), 3)))
        generations.forget_remainders(data, wanted)
        if kept != held:
            manifest.save(data, kept)
        _sweep(data, kept)
        for video in wanted:
            store.remove(video)
    return counts


def _rewritten(data: str, held: Manifest, wanted: frozenset[str]) -> tuple[Manifest, Removal]:
    """The manifest without the videos, its new shards written, and what went."""
    shards = examples = others = 0
    found: set[str] = set()
    changed = []
    for generation in held.generations:
        kept: list[Shard] = []
        for shard in generation.shards:
            plan, groups, texts, judged = _planned(data, shard)
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


def _planned(data: str, shard: Shard) -> tuple[str, list[Group], list[list[TextRef]], list[dict[str, Any]]]:
    path = stats_path(filesystem.join(data, shard.name))
    try:
        sidecar = json.loads(filesystem.read_bytes(path))
        texts = [[(source, number) for source, number in refs] for refs in sidecar.get("texts", [])]
        groups = [[Run(*run) for run in group] for group in sidecar["runs"]]
        return sidecar["plan"], groups, texts, sidecar.get("judged", [])
    except (OSError, ValueError, KeyError, TypeError):
        raise RemovalError(f"{path} does not say which videos {shard.name} holds; repair the data set first") from None


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
