"""A generation that is written while nobody holds the data folder: what it will be is pinned before its first shard.

Whoever comes next plans it again from the pinned videos, so that any number of jobs on it write the same bytes. A plan
that lost a video to a removal is given up with its number: a job that still writes such shards meets nobody's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shards import filesystem, generations, removal
from shards.errors import UsageError, UserError
from shards.generations import GenerationPlan, Packing
from shards.manifest import Manifest

NAME = "planned.json"


@dataclass(frozen=True)
class Pin:
    """A planned generation: its number, split and videos, how they are packed, and the digest of what was withdrawn."""

    number: int
    split: str
    videos: list[str]
    packing: dict[str, Any]
    withdrawn: str


def pin(data: str, plan: GenerationPlan, packing: Packing) -> None:
    """Make a plan hold for everybody, until it is committed or a video is taken out. Call it with the folder locked."""
    held = Pin(plan.number, plan.split, plan.videos, dataclasses.asdict(packing), _withdrawn(data))
    filesystem.write_bytes(_path(data), (json.dumps(vars(held), ensure_ascii=False) + "\n").encode())


def begun(data: str, held: Manifest | None) -> Pin | None:
    """The pinned generation that is neither committed nor given up."""
    found = _load(data)
    committed = {g.number for g in held.generations} if held else set()
    return found if found and found.number not in committed and found.withdrawn == _withdrawn(data) else None


def require_none_begun(data: str, held: Manifest | None) -> None:
    """Raises `UsageError` if a generation is pinned and not committed."""
    if found := begun(data, held):
        raise UsageError(
            f"generation {found.number} of {data!r} was launched and is not committed; wait for that job, or finish it"
            f" with --stage assemble --split {found.split}"
        )


def next_number(data: str, held: Manifest | None) -> int:
    """The number of a generation after all others, those that were given up among them."""
    found = _load(data)
    return max(generations.next_number(held), found.number + 1 if found else 0)


def next_plan(
    data: str, held: Manifest | None, split: str, videos: Iterable[str], packing: Packing
) -> GenerationPlan | None:
    """The pinned generation, or else one of the committed `videos` that no other holds; `None` if there are none.

    Raises `UsageError` if the pinned one was planned with another split or packing, `SegmentStoreError` if a video's
    segments are missing or damaged.
    """
    if found := begun(data, held):
        ours = {"split": split} | dataclasses.asdict(packing)
        for name, theirs in ({"split": found.split} | found.packing).items():
            if ours[name] != theirs:
                raise UsageError(
                    f"generation {found.number} of {data!r} is being written with {name} {theirs!r}, not"
                    f" {ours[name]!r}; finish it with the same first"
                )
        return generations.plan_rest(data, held, split, found.number, found.videos, packing)
    known = generations.packed_videos(data, held) | removal.withdrawn(data)
    new = [video for video in set(videos) if video not in known]
    return generations.plan_rest(data, held, split, next_number(data, held), new, packing) if new else None


def _load(data: str) -> Pin | None:
    if not filesystem.exists(_path(data)):
        return None
    try:
        return Pin(**json.loads(filesystem.read_bytes(_path(data))))
    except (ValueError, TypeError):
        raise UserError(f"{_path(data)!r} is damaged; restore it, or choose another --out") from None


def _path(data: str) -> str:
    return filesystem.join(data, NAME)


def _withdrawn(data: str) -> str:
    return hashlib.sha256(json.dumps(sorted(removal.withdrawn(data))).encode()).hexdigest()
