"""A data folder grows by generations: the committed videos that no generation holds yet are packed into new shards.

A generation is planned from the committed segments alone, so that the same command after any interruption makes the
same plan. It becomes data when the manifest names it, which is the last thing written; segments too few to fill an
example stay in the store and come first in the next generation of their split.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from shards import filesystem, manifest, packing
from shards.manifest import Generation, Manifest, Shard, index_path, shard_name, stats_path
from shards.packing import Group, Run
from shards.randomness import digest, generator
from shards.segments import SegmentStore, segments_folder
from shards.writer import plan_digest

REMAINDER = "remainder.json"

_RECORD_OVERHEAD = 900
"""Bytes that names, digests and framing add to a segment in a record; only the number of shards depends on it."""


TextRef = tuple[str, int]
"""A source of text and the number of one of its sequences."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its name, the digest of its plan, the groups it holds, and each group's texts if any."""

    name: str
    digest: str
    groups: list[Group]
    texts: list[list[TextRef]] = field(default_factory=list)


@dataclass(frozen=True)
class GenerationPlan:
    """What a new generation will be: its shards, the videos it takes up, and the runs it leaves over."""

    number: int
    split: str
    videos: list[str]
    shards: list[ShardPlan]
    remainder: list[Run]


def packed_videos(data: str, held: Manifest | None) -> set[str]:
    """The ids of all videos that some generation took up."""
    packed: set[str] = set()
    for generation in held.generations if held else []:
        packed.update(json.loads(line) for line in filesystem.read_bytes(_videos_path(data, generation)).splitlines())
    return packed


def read_remainder(data: str, held: Manifest | None, split: str) -> list[Run]:
    """The runs that the newest generation of a split left over."""
    numbers = [g.number for g in held.generations if g.split == split] if held else []
    if not numbers:
        return []
    return [Run(*run) for run in _remainders(data)[str(max(numbers))]]


def plan_generation(
    data: str,
    held: Manifest | None,
    split: str,
    videos: Iterable[str],
    *,
    seed: int,
    config: str,
    segments_per_example: int,
    shard_bytes: int,
) -> GenerationPlan | None:
    """Pack the committed `videos` that no generation holds yet; `None` if there are none.

    Raises `SegmentStoreError` if a video's segments are missing or damaged.
    """
    packed = packed_videos(data, held)
    new = sorted((v for v in set(videos) if v not in packed), key=lambda v: digest(seed, "pack", v))
    if not new:
        return None
    number = len(held.generations) if held else 0
    store = SegmentStore(segments_folder(data))
    carried = read_remainder(data, held, split)
    lengths = {v: [length for _, length, _ in store.get(v).spans] for v in {*new, *(run.video_id for run in carried)}}
    runs = [*carried, *(Run(v, 0, len(lengths[v])) for v in new)]
    rng = generator(seed, "pack", split, number)
    groups, remainder = packing.pack(runs, segments_per_example, rng.random)
    sizes = [
        sum(n + _RECORD_OVERHEAD for run in g for n in lengths[run.video_id][run.first : run.stop]) for g in groups
    ]
    dealt = packing.plan_shards(groups, sizes, shard_bytes, generator(seed, "shuffle", split, number))
    shards = [
        ShardPlan(shard_name(split, number, i, len(dealt)), plan_digest(config, part), part)
        for i, part in enumerate(dealt)
    ]
    return GenerationPlan(number, split, new, shards, remainder)


def discard_unfinished(data: str, held: Manifest | None, plan: GenerationPlan) -> None:
    """Remove files of a generation that was never committed and was planned otherwise."""
    kept = {name for s in plan.shards for name in (s.name, index_path(s.name), stats_path(s.name))}
    kept |= {name for s in (held.shards() if held else []) for name in (s.name, index_path(s.name), stats_path(s.name))}
    shard_file = re.compile(r"[A-Za-z0-9]+-g\d{4}-\d{5}of\d{5}\.(tfrecord|index|stats\.json)$")
    for path in filesystem.list_files(data):
        name = path.rsplit("/", 1)[-1]
        if shard_file.match(name) and name not in kept:
            filesystem.remove(path)


def commit_generation(
    data: str, held: Manifest | None, plan: GenerationPlan, shards: list[Shard], config: str, tokenizer: str, size: int
) -> Manifest:
    """Make the planned generation part of the data: its videos, its remainder, and last the manifest."""
    segments = sum(s.examples for s in shards) * size
    text = Counter(source for planned in plan.shards for refs in planned.texts for source, _ in refs)
    generation = Generation(plan.number, plan.split, len(plan.videos), segments, shards, dict(sorted(text.items())))
    lines = "".join(json.dumps(video, ensure_ascii=False) + "\n" for video in plan.videos)
    filesystem.write_bytes(_videos_path(data, generation), lines.encode())
    # The manifest decides which entry counts, so an entry written before a crash does no harm.
    remainders = _remainders(data) | {str(plan.number): [[r.video_id, r.first, r.stop] for r in plan.remainder]}
    newest = {g.split: str(g.number) for g in [*(held.generations if held else []), generation]}
    earlier = {g.split: str(g.number) for g in (held.generations if held else [])}
    alive = {*newest.values(), *earlier.values()}
    text = json.dumps({number: runs for number, runs in sorted(remainders.items()) if number in alive}, indent=1)
    filesystem.write_bytes(filesystem.join(data, REMAINDER), f"{text}\n".encode())
    generations = [*(held.generations if held else []), generation]
    committed = Manifest(size, config, tokenizer, generations)
    manifest.save(data, committed)
    return committed


def forget_remainders(data: str, videos: Collection[str]) -> None:
    """Drop the runs of some videos that wait for a next generation."""
    held = _remainders(data)
    left = {number: [run for run in runs if run[0] not in videos] for number, runs in held.items()}
    if left != held:
        filesystem.write_bytes(filesystem.join(data, REMAINDER), f"{json.dumps(left, indent=1)}\n".encode())


def drop_packed_segments(data: str, held: Manifest) -> None:
    """Remove the segments of every packed video from the store, but for those that wait in a remainder."""
    waiting = {run.video_id for split in held.splits() for run in read_remainder(data, held, split)}
    store = SegmentStore(segments_folder(data))
    for video in packed_videos(data, held) - waiting:
        store.remove(video)


def _videos_path(data: str, generation: Generation) -> str:
    return filesystem.join(data, f"{generation.split}-g{generation.number:04d}.videos")


def _remainders(data: str) -> dict[str, list[list]]:
    path = filesystem.join(data, REMAINDER)
    return json.loads(filesystem.read_bytes(path)) if filesystem.exists(path) else {}
