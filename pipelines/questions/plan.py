"""Plan the shards of a split of questions: line i of the split goes to shard i mod n."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pipelines.questions.lines import Place
from pipelines.questions.options import TEST
from pipelines.questions.preparers import Preparer
from pipelines.runner.limits import Limits
from shards.dataset.manifest import Generation, Manifest, shard_name

_SHARDS = {"train": 256}
_OTHER_SHARDS = 8


@dataclass(frozen=True)
class Job:
    """One split to prepare: the file of its lines, the data folder, the preparer of its lines, and their limits."""

    lines: str
    out: str
    split: str
    preparer: Preparer
    tokenizer: str = "published"
    shards: int | None = None
    limit: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def strict(self) -> bool:
        """Whether every question must be prepared."""
        return self.split == TEST

    def name(self, line: int) -> str:
        """Return the name of a line in the ledger."""
        return f"{self.split}-{line}"


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its name, the digest of its inputs, and its lines.

    `repeats` are the lines that repeat the id of an earlier line, with the number of that line.
    """

    name: str
    digest: str
    lines: tuple[Place, ...]
    repeats: tuple[tuple[int, int], ...] = ()


def plan(
    job: Job,
    places: list[Place],
    config: str,
    committed: Manifest | None,
    repeats: Mapping[int, int] = MappingProxyType({}),
) -> list[ShardPlan]:
    """Return the shards of a split: line i goes to shard i mod n (docs/spec/finetune_data.md 1)."""
    count = min(job.shards or _SHARDS.get(job.split, _OTHER_SHARDS), len(places))
    number = generation_number(committed, job.split)
    plans = []
    for i in range(count):
        lines = tuple(places[i::count])
        repeated = tuple((line, repeats[line]) for line, _, _ in lines if line in repeats)
        inputs = [config, job.split, lines, *([repeated] if repeated else [])]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        plans.append(ShardPlan(shard_name(job.split, number, i, count), digest, lines, repeated))
    return plans


def generation_of(committed: Manifest | None, split: str) -> Generation | None:
    """Return the generation of a split, if there is one: a split of questions has at most one."""
    return next((g for g in committed.generations if g.split == split), None) if committed else None


def generation_number(committed: Manifest | None, split: str) -> int:
    """Return the number of the existing or next generation of a split."""
    if generation := generation_of(committed, split):
        return generation.number
    return committed.next_number() if committed else 0
