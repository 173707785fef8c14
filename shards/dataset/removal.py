"""Take videos out of a finished data set, as a takedown notice or a request demands.

Only the shards that hold one of the videos are written again, under new names and without the examples that show it;
the manifest changes in one step, and then the old files go. The same command finishes an interrupted removal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from shards.dataset import generation_sums, ledger, manifest, planning
from shards.dataset.ledger import Entry
from shards.dataset.manifest import (
    Generation,
    Manifest,
    Shard,
    generation_stats_path,
    index_path,
    lock_path,
    stats_path,
)
from shards.dataset.sidecar import read_contents
from shards.dataset.video_store import VideoStore
from shards.dataset.writer import write_shard
from shards.records.pretraining import Example, parse_example
from shards.records.tfrecord import scan
from shards.storage import filesystem
from shards.storage.errors import StorageError, UserError
from shards.storage.stored_config import CONFIG_NAME

OUTCOME, KIND = "withdrawn", "failed-final"
"""What the ledger says of a video that was taken out, so that no job takes it up again."""

_DEALT = re.compile(r"-g\d{4}-[0-9a-f]{6}-(\d{5})of(\d{5})(?:-r\d+)?\.tfrecord$")
_REVISION = re.compile(r"(-r(\d+))?\.tfrecord$")


@dataclass(frozen=True)
class Removal:
    """What went: shards written again, examples dropped, and segments of other videos that went with them.

    `absent` are the videos that are in no shard.
    """

    videos: int
    shards: int
    examples: int
    other_segments: int
    absent: tuple[str, ...] = ()


def remove(data: str, ids: Collection[str]) -> Removal:
    """Take every trace of the videos `ids` out of the shards, the store and the remainders, and record it.

    Raises `UserError` for a folder that was merged of others, `SidecarError` if a sidecar does not say what its shard
    holds, `StorageError` if another job is at work.
    """
    wanted = frozenset(ids)
    with filesystem.exclusive(lock_path(data)):
        committed = removable(data)
        _sweep(data, committed)
        kept, counts, touched = _rewritten(data, committed, wanted)
        _record(data, wanted, touched)
        if kept != committed:
            for old, new in zip(committed.generations, kept.generations, strict=True):
                if old.shards != new.shards:
                    _sum_again(data, old, new)
            manifest.save(data, kept)
        _sweep(data, kept)
        store = VideoStore(data)
        for video in wanted:
            store.remove(video)
    return counts


def removable(data: str) -> Manifest:
    """Load the manifest of a folder that videos can be removed from.

    Raises `UserError` for a folder that was merged of others.
    """
    committed = manifest.load(data)
    if committed.folders():
        raise UserError(
            f"{data!r} was merged of {', '.join(committed.folders())}; remove the videos from these folders, then"
            " merge them again"
        )
    return committed


def withdrawn(data: str) -> set[str]:
    """The ids that were taken out on request, which nobody may take up again."""
    return {entry.id for entry in ledger.read_removals(data)}


def withdrawn_digest(data: str) -> str:
    """What tells one list of videos that were taken out from another."""
    return hashlib.sha256(filesystem.read_existing(ledger.removals_path(data)) or b"").hexdigest()


def _record(data: str, videos: Collection[str], splits: Mapping[str, str]) -> None:
    """Add videos to the list of those that were taken out; `splits` names the splits of those in the data."""
    now = round(time.time(), 3)

    def added(content: bytes | None) -> bytes:
        entries = {entry.id: entry for entry in ledger.removal_entries(content, ledger.removals_path(data))}
        for video in sorted(set(videos) - set(entries)):
            earlier, split = ("done/extracted", splits[video]) if video in splits else ("", "train")
            entries[video] = Entry(video, OUTCOME, KIND, "taken out on request", split=split, at=now, earlier=earlier)
        return b"".join(ledger.line(entry) + b"\n" for entry in entries.values())

    filesystem.update(ledger.removals_path(data), added)


def _sum_again(data: str, old: Generation, new: Generation) -> None:
    """Write the statistics of a generation whose shards changed."""
    found = generation_sums.read_generation(data, old).items()
    for shard in new.shards:
        found.add(generation_sums.read_sidecar(data, shard))
    filesystem.write_bytes(generation_stats_path(data, new), found.to_json().encode())


def _may_hold(shard: Shard, wanted: Collection[str], seed: int | None) -> bool:
    """Whether a shard can hold one of the videos: those dealt by hash hold a video only if its hash says so."""
    dealt = _DEALT.search(shard.name)
    if seed is None or not dealt:
        return True
    index, count = map(int, dealt.groups())
    return any(planning.shard_of(seed, video, count) == index for video in wanted)


def _rewritten(data: str, committed: Manifest, wanted: frozenset[str]) -> tuple[Manifest, Removal, dict[str, str]]:
    """The manifest without the videos, its new shards written, what went, and the splits of the videos found."""
    shards = examples = others = 0
    found: dict[str, str] = {}
    changed = []
    seed = _seed(data)
    for generation in committed.generations:
        kept: list[Shard] = []
        for shard in generation.shards:
            if not _may_hold(shard, wanted, seed):
                kept.append(shard)
                continue
            plan, groups, texts, judged = read_contents(data, shard.name)
            clean = [i for i, group in enumerate(groups) if not any(run.video_id in wanted for run in group)]
            if len(clean) == len(groups):
                kept.append(shard)
                continue
            dropped = [run for i, group in enumerate(groups) if i not in set(clean) for run in group]
            found |= dict.fromkeys({run.video_id for run in dropped} & wanted, generation.split)
            others += sum(len(run) for run in dropped if run.video_id not in wanted)
            examples += len(groups) - len(clean)
            shards += 1
            if clean:
                name = _next_name(shard.name)
                examples_left = _examples(data, shard, set(clean))
                texts_left = [texts[i] for i in clean] if texts else []
                judged = [g for g in judged if not any(run[0] in wanted for run in g["runs"])]
                groups_left = [groups[i] for i in clean]
                kept.append(write_shard(data, name, plan, groups_left, examples_left, texts_left, judged)[0])
        size = sum(s.examples for s in kept) * committed.segments_per_example
        found |= dict.fromkeys({run[0] for run in generation.remainder} & wanted, generation.split)
        remainder = [run for run in generation.remainder if run[0] not in wanted]
        changed.append(dataclasses.replace(generation, shards=kept, segments=size, remainder=remainder))
    counts = Removal(len(found), shards, examples, others, tuple(sorted(wanted - found.keys())))
    return dataclasses.replace(committed, generations=changed), counts, found


def _seed(data: str) -> int | None:
    """The seed that videos are dealt to shards with, if the folder says so."""
    try:
        return json.loads(filesystem.read_bytes(filesystem.join(data, CONFIG_NAME)))["video"]["seed"]
    except (StorageError, ValueError, LookupError, TypeError):
        return None


def _examples(data: str, shard: Shard, kept: set[int]) -> Iterator[Example]:
    path = filesystem.join(data, shard.name)
    with filesystem.open_read(path) as file:
        for number, (_, payload) in enumerate(scan(file, path)):
            if number in kept:
                yield parse_example(payload)


def _next_name(name: str) -> str:
    number = int(_REVISION.search(name)[2] or 0) + 1
    return _REVISION.sub(f"-r{number}.tfrecord", name)


def _sweep(data: str, committed: Manifest) -> None:
    """Remove revisions and originals of the generations' shards that the manifest does not name (any more)."""
    named = {s.name for s in committed.shards()}
    generations = tuple(f"{g.split}-g{g.number:04d}-" for g in committed.generations)
    for path in filesystem.list_files(data, ".tfrecord"):
        name = path.rpartition("/")[2]
        if name not in named and name.startswith(generations):
            for part in (path, index_path(path), stats_path(path)):
                filesystem.remove(part)
