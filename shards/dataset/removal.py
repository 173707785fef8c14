"""Remove videos from a finished data set, for example after a takedown notice.

Only shards with one of the videos are rewritten, under new names and without the affected examples; the manifest
changes atomically, and then the old files are removed. Running the same command again finishes an interrupted removal.
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
"""Outcome and kind of a removed video in the ledger, so that no job extracts it again."""

_HASHED_SHARD = re.compile(r"-g\d{4}-[0-9a-f]{6}-(\d{5})of(\d{5})(?:-r\d+)?\.tfrecord$")
_REVISION = re.compile(r"-r(\d+)$")


@dataclass(frozen=True)
class Removal:
    """Counts of a removal: videos, rewritten shards, dropped examples, and segments of other videos in them.

    `absent` are the requested videos that are not in the data.
    """

    videos: int
    shards: int
    examples: int
    other_segments: int
    absent: tuple[str, ...] = ()


def remove(data: str, ids: Collection[str]) -> Removal:
    """Remove the videos `ids` from the shards, the store and the remainders, and add them to the list of removals.

    Raises `UserError` for a merged folder, `SidecarError` if a sidecar is damaged, `StorageError` if another job is
    running.
    """
    requested = frozenset(ids)
    with filesystem.exclusive(lock_path(data)):
        committed = removable(data)
        _sweep(data, committed)
        changed, counts, splits = _rewrite(data, committed, requested)
        _record(data, requested, splits)
        if changed != committed:
            for old, new in zip(committed.generations, changed.generations, strict=True):
                if old.shards != new.shards:
                    _write_statistics(data, old, new)
            manifest.save(data, changed)
        _sweep(data, changed)
        store = VideoStore(data)
        for video in requested:
            store.remove(video)
    return counts


def removable(data: str) -> Manifest:
    """Load the manifest of a folder that videos can be removed from. Raises `UserError` for a merged folder."""
    committed = manifest.load(data)
    if committed.folders():
        raise UserError(
            f"{data!r} was merged from {', '.join(committed.folders())}; remove the videos from these folders, then"
            " merge them again"
        )
    return committed


def withdrawn(data: str) -> set[str]:
    """Return the ids of videos that were removed on request and must not be extracted again."""
    return {entry.id for entry in ledger.read_removals(data)}


def withdrawn_digest(data: str) -> str:
    """Return the SHA-256 of the list of removed videos."""
    return hashlib.sha256(filesystem.read_existing(ledger.removals_path(data)) or b"").hexdigest()


def _record(data: str, videos: Collection[str], splits: Mapping[str, str]) -> None:
    """Add videos to the list of removals; `splits` has the splits of the videos that were in the data."""
    now = round(time.time(), 3)

    def added(content: bytes | None) -> bytes:
        entries = {entry.id: entry for entry in ledger.removal_entries(content, ledger.removals_path(data))}
        for video in sorted(set(videos) - set(entries)):
            earlier, split = ("done/extracted", splits[video]) if video in splits else ("", "train")
            entries[video] = Entry(video, OUTCOME, KIND, "removed on request", split=split, at=now, earlier=earlier)
        return b"".join(ledger.line(entry) + b"\n" for entry in entries.values())

    filesystem.update(ledger.removals_path(data), added)


def _write_statistics(data: str, old: Generation, new: Generation) -> None:
    """Write the statistics of a generation whose shards changed."""
    sums = generation_sums.read_generation(data, old).items()
    for shard in new.shards:
        sums.add(generation_sums.read_sidecar(data, shard))
    filesystem.write_bytes(generation_stats_path(data, new), sums.to_json().encode())


def _may_contain(shard: Shard, videos: Collection[str], seed: int | None) -> bool:
    """Return whether a shard may contain one of the videos, by the hash that assigns videos to shards."""
    hashed = _HASHED_SHARD.search(shard.name)
    if seed is None or not hashed:
        return True
    index, count = map(int, hashed.groups())
    return any(planning.shard_of(seed, video, count) == index for video in videos)


def _rewrite(data: str, committed: Manifest, requested: frozenset[str]) -> tuple[Manifest, Removal, dict[str, str]]:
    """Write the affected shards without the videos; return the new manifest, counts, and splits of the videos."""
    shards = examples = others = 0
    splits: dict[str, str] = {}
    changed = []
    seed = _seed(data)
    for generation in committed.generations:
        kept: list[Shard] = []
        for shard in generation.shards:
            if not _may_contain(shard, requested, seed):
                kept.append(shard)
                continue
            plan, groups, texts, judged = read_contents(data, shard.name)
            clean = [i for i, group in enumerate(groups) if not any(run.video_id in requested for run in group)]
            if len(clean) == len(groups):
                kept.append(shard)
                continue
            dropped = [run for i, group in enumerate(groups) if i not in set(clean) for run in group]
            splits |= dict.fromkeys({run.video_id for run in dropped} & requested, generation.split)
            others += sum(len(run) for run in dropped if run.video_id not in requested)
            examples += len(groups) - len(clean)
            shards += 1
            if clean:
                name = _next_name(shard.name)
                remaining = _examples(data, shard, set(clean))
                remaining_texts = [texts[i] for i in clean] if texts else []
                judged = [g for g in judged if not any(run[0] in requested for run in g["runs"])]
                remaining_groups = [groups[i] for i in clean]
                kept.append(write_shard(data, name, plan, remaining_groups, remaining, remaining_texts, judged)[0])
        size = sum(s.examples for s in kept) * committed.segments_per_example
        splits |= dict.fromkeys({run[0] for run in generation.remainder} & requested, generation.split)
        remainder = [run for run in generation.remainder if run[0] not in requested]
        changed.append(dataclasses.replace(generation, shards=kept, segments=size, remainder=remainder))
    counts = Removal(len(splits), shards, examples, others, tuple(sorted(requested - splits.keys())))
    return dataclasses.replace(committed, generations=changed), counts, splits


def _seed(data: str) -> int | None:
    """Return the seed of the assignment of videos to shards, if the folder's config has one."""
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
    stem = name.removesuffix(".tfrecord")
    revision = _REVISION.search(stem)
    return f"{stem[: revision.start()]}-r{int(revision[1]) + 1}.tfrecord" if revision else f"{stem}-r1.tfrecord"


def _sweep(data: str, committed: Manifest) -> None:
    """Remove files of shards, original or rewritten, that the manifest does not name or no longer names."""
    named = {s.name for s in committed.shards()}
    generations = tuple(f"{g.split}-g{g.number:04d}-" for g in committed.generations)
    for path in filesystem.list_files(data, ".tfrecord"):
        name = path.rpartition("/")[2]
        if name not in named and name.startswith(generations):
            for part in (path, index_path(path), stats_path(path)):
                filesystem.remove(part)
