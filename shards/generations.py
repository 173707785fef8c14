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

from shards import filesystem, manifest
from shards.manifest import Generation, Manifest, Shard, index_path, shard_name, stats_path
from shards.packing import Group, Run, pack, plan_shards
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
class Packing:
    """What decides how segments are packed, besides the segments: seed, digest of the config, sizes, further rules."""

    seed: int
    config: str
    segments_per_example: int
    shard_bytes: int
    rules: str = ""

    @property
    def decisive(self) -> str:
        """What decides about the content of a shard besides its segments, for its digest."""
        return self.config + self.rules


@dataclass(frozen=True)
class GenerationPlan:
    """What a new generation will be: its shards, the videos it takes up, and the runs it leaves over.

    `took` are the numbers of the generations whose left-over runs it packs.
    """

    number: int
    split: str
    videos: list[str]
    shards: list[ShardPlan]
    remainder: list[Run]
    took: list[int]


def packed_videos(data: str, held: Manifest | None) -> set[str]:
    """The ids of all videos that some generation took up."""
    return {video for generation in (held.generations if held else []) for video in videos_of(data, generation)}


def videos_of(data: str, generation: Generation) -> list[str]:
    """The ids of the videos that a generation took up."""
    return [json.loads(line) for line in filesystem.read_bytes(_videos_path(data, generation)).splitlines()]


def holders(data: str, held: Manifest, videos: Collection[str]) -> set[int]:
    """The numbers of the generations that may hold segments of some of the videos, from the lists of their videos."""
    wanted = {json.dumps(video, ensure_ascii=False).encode() for video in videos}
    found: set[int] = set()
    # A generation that took up what another left over has a higher number.
    for generation in held.generations:
        path = _videos_path(data, generation)
        if (
            not found.isdisjoint(held.taken_up(generation))
            or not filesystem.exists(path)
            or not wanted.isdisjoint(filesystem.read_bytes(path).splitlines())
        ):
            found.add(generation.number)
    return found


def read_remainder(data: str, held: Manifest | None, split: str) -> list[Run]:
    """The runs of a split that wait to be packed, those of older generations first."""
    left = _remainders(data)
    return [run for number in _waiting(held, split) for run in left[number]]


def next_number(held: Manifest | None) -> int:
    """The number of a generation after all others."""
    return max((g.number for g in held.generations), default=-1) + 1 if held else 0


def plan_wave(data: str, split: str, number: int, videos: Iterable[str], packing: Packing) -> GenerationPlan:
    """Pack the committed `videos` of one wave, which no other generation has a part in. Raises as `plan_rest`."""
    return _plan(data, split, number, videos, [], [], packing)


def plan_rest(
    data: str, held: Manifest | None, split: str, number: int, videos: Iterable[str], packing: Packing
) -> GenerationPlan:
    """Pack all that waits in the split, and the committed `videos`, which no generation holds yet.

    Raises `SegmentStoreError` if a video's segments are missing or damaged.
    """
    carried, took = read_remainder(data, held, split), _waiting(held, split)
    return _plan(data, split, number, videos, carried, took, packing)


def _plan(
    data: str, split: str, number: int, videos: Iterable[str], carried: list[Run], took: list[int], packing: Packing
) -> GenerationPlan:
    new = sorted(videos, key=lambda v: digest(packing.seed, "pack", v))
    store = SegmentStore(segments_folder(data))
    lengths = {v: [length for _, length, _ in store.get(v).spans] for v in {*new, *(run.video_id for run in carried)}}
    runs = [*carried, *(Run(v, 0, len(lengths[v])) for v in new)]
    rng = generator(packing.seed, "pack", split, number)
    groups, remainder = pack(runs, packing.segments_per_example, rng.random)
    sizes = [
        sum(n + _RECORD_OVERHEAD for run in g for n in lengths[run.video_id][run.first : run.stop]) for g in groups
    ]
    dealt = plan_shards(groups, sizes, packing.shard_bytes, generator(packing.seed, "shuffle", split, number))
    shards = [
        ShardPlan(shard_name(split, number, i, len(dealt)), plan_digest(packing.decisive, part), part)
        for i, part in enumerate(dealt)
    ]
    return GenerationPlan(number, split, new, shards, remainder, took)


def discard_unfinished(data: str, held: Manifest | None, plan: GenerationPlan) -> None:
    """Remove shards that an earlier run wrote for this generation when it was planned otherwise."""
    kept = {name for s in plan.shards for name in (s.name, index_path(s.name), stats_path(s.name))}
    kept |= {name for s in (held.shards() if held else []) for name in (s.name, index_path(s.name), stats_path(s.name))}
    shard_file = re.compile(rf"[A-Za-z0-9]+-g{plan.number:04d}-\d{{5}}of\d{{5}}\.(tfrecord|index|stats\.json)$")
    for path in filesystem.list_files(data):
        name = path.rsplit("/", 1)[-1]
        if shard_file.match(name) and name not in kept:
            filesystem.remove(path)


def commit_generation(
    data: str, held: Manifest | None, plan: GenerationPlan, shards: list[Shard], packing: Packing, tokenizer: str
) -> Manifest:
    """Make the planned generation part of the data: its videos, its remainder, and last the manifest."""
    size = packing.segments_per_example
    segments = sum(s.examples for s in shards) * size
    text = Counter(source for planned in plan.shards for refs in planned.texts for source, _ in refs)
    counted = dict(sorted(text.items()))
    generation = Generation(plan.number, plan.split, len(plan.videos), segments, shards, plan.took, counted)
    lines = "".join(json.dumps(video, ensure_ascii=False) + "\n" for video in plan.videos)
    filesystem.write_bytes(_videos_path(data, generation), lines.encode())
    # The manifest decides which entry counts, so an entry written before a crash does no harm.
    alive = {number for split in (held.splits() if held else []) for number in _waiting(held, split)}
    left = {number: runs for number, runs in _remainders(data).items() if number in alive}
    _write_remainders(data, left | {plan.number: plan.remainder})
    earlier = held.generations if held else []
    generations = sorted([*earlier, generation], key=lambda g: g.number)
    committed = Manifest(size, packing.config, tokenizer, generations)
    manifest.save(data, committed)
    return committed


def forget_remainders(data: str, videos: Collection[str]) -> None:
    """Drop the runs of some videos that wait for a next generation."""
    held = _remainders(data)
    left = {number: [run for run in runs if run.video_id not in videos] for number, runs in held.items()}
    if left != held:
        _write_remainders(data, left)


def drop_packed_segments(data: str, held: Manifest) -> None:
    """Remove the segments of every packed video from the store, but for those that wait in a remainder."""
    _drop(data, held, packed_videos(data, held))


def drop_segments_of(data: str, held: Manifest, number: int) -> None:
    """Remove the segments that a generation packed, its own videos' and those it took up; what waits stays."""
    generation = next(g for g in held.generations if g.number == number)
    left = _remainders(data)
    took = {run.video_id for n in held.taken_up(generation) for run in left.get(n, [])}
    _drop(data, held, took.union(videos_of(data, generation)))


def _drop(data: str, held: Manifest, videos: set[str]) -> None:
    waiting = {run.video_id for split in held.splits() for run in read_remainder(data, held, split)}
    store = SegmentStore(segments_folder(data))
    for video in videos - waiting:
        store.remove(video)


def _videos_path(data: str, generation: Generation) -> str:
    return filesystem.join(data, f"{generation.split}-g{generation.number:04d}.videos")


def _waiting(held: Manifest | None, split: str) -> list[int]:
    """The generations of a split whose left-over runs nobody took up, in order."""
    generations = [g for g in held.generations if g.split == split] if held else []
    taken = {number for g in generations for number in held.taken_up(g)}
    return sorted({g.number for g in generations} - taken)


def _remainders(data: str) -> dict[int, list[Run]]:
    path = filesystem.join(data, REMAINDER)
    held = json.loads(filesystem.read_bytes(path)) if filesystem.exists(path) else {}
    return {int(number): [Run(*run) for run in runs] for number, runs in held.items()}


def _write_remainders(data: str, left: dict[int, list[Run]]) -> None:
    entries = {str(n): [[run.video_id, run.first, run.stop] for run in runs] for n, runs in sorted(left.items())}
    filesystem.write_bytes(filesystem.join(data, REMAINDER), f"{json.dumps(entries, indent=1)}\n".encode())
