"""Commit a split of questions: report the outcomes of its lines and add its finished shards to the manifest."""

from __future__ import annotations

import dataclasses
from collections import Counter

from rich.console import Console

from pipelines.questions.plan import Job, ShardPlan, generation_number
from pipelines.runner.data_folder import vocabulary_of
from shards.dataset import location as dataset
from shards.dataset import manifest, writer
from shards.dataset.ledger import Ledger
from shards.dataset.manifest import Generation, Manifest
from shards.inspection import stats
from shards.outcomes import Kind
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError

_FIX = "fix the lines named above and run the same command again"


def commit(job: Job, plans: list[ShardPlan], config: str, committed: Manifest | None, console: Console) -> int:
    """Add the finished shards to the manifest, print the outcomes of the questions, and return the exit status.

    Raises `UserError` if shards are missing or most lines were rejected.
    """
    ledger = Ledger(job.out).entries()
    names = [job.name(number) for plan in plans for number, _, _ in plan.lines]
    entries = [ledger[name] for name in names if name in ledger]
    reasons = Counter(entry.outcome for entry in entries if entry.kind != Kind.DONE.value)
    for reason, count in sorted(reasons.items()):
        first = next(entry for entry in entries if entry.outcome == reason)
        console.print(f"{count} {reason}, for example {first.id}: {first.detail}")
    finished = [writer.finished_shard(job.out, plan.name, plan.digest) for plan in plans]
    shards = [shard_and_sidecar[0] for shard_and_sidecar in finished if shard_and_sidecar is not None]
    if len(shards) < len(plans):
        if reasons and job.strict:
            raise UserError(
                f"{sum(reasons.values())} of {len(names)} questions of the split {job.split!r} cannot be prepared, and"
                f" a leaderboard file needs them all; {_FIX}"
            )
        raise UserError(f"{len(plans) - len(shards)} shards were not written; run the same command again")
    prepared = sum(entry.kind == Kind.DONE.value for entry in entries)
    if not prepared:
        _remove_incomplete(job, plans)
        raise UserError(f"no question could be prepared: {_summary(reasons)}; {_FIX}")
    generation = Generation(
        generation_number(committed, job.split), job.split, prepared, sum(shard.examples for shard in shards), shards
    )
    others = [g for g in (committed.generations if committed else []) if g.split != job.split]
    generations = sorted([*others, generation], key=lambda g: g.number)
    committed = Manifest(job.preparer.segments, config, vocabulary_of(job.out), generations)
    manifest.save(job.out, committed)
    summary = stats.summarize(dataset.DataSet(job.out, [], committed), job.split)
    console.print(
        f"{job.out}: {prepared} questions of the split {job.split!r} in {summary.shards} shards,"
        f" {summary.counts['examples']} records, {summary.bytes / 1e6:.1f} MB"
    )
    if 2 * prepared < len(names):
        raise UserError(
            f"{len(names) - prepared} of {len(names)} questions of the split {job.split!r} were rejected:"
            f" {_summary(reasons)}; the prepared questions are kept, {_FIX}"
        )
    return 0


def is_mostly_rejected(job: Job, generation: Generation) -> bool:
    """Return whether most lines of a committed split were rejected."""
    entries = [entry for entry in Ledger(job.out).entries().values() if entry.split == job.split]
    return 2 * generation.videos < len(entries)


def reopen(job: Job, committed: Manifest, generation: Generation, plans: list[ShardPlan]) -> Manifest:
    """Remove the shards of a split from the manifest, so that incomplete ones are written again, and return it."""
    emptied = dataclasses.replace(generation, videos=0, segments=0, shards=[])
    reopened = dataclasses.replace(
        committed, generations=[emptied if g is generation else g for g in committed.generations]
    )
    manifest.save(job.out, reopened)
    names = {plan.name for plan in plans}
    for shard in generation.shards:
        if shard.name not in names:
            for path in _files(job, shard.name):
                filesystem.remove(path)
    _remove_incomplete(job, plans)
    return reopened


def require_same_questions(job: Job, committed: Manifest, plans: list[ShardPlan]) -> None:
    """Raise `UsageError` if the committed split was prepared from other questions."""
    names = {shard.name for shard in committed.shards(job.split)}
    same = names == {plan.name for plan in plans}
    if not same or any(writer.finished_shard(job.out, plan.name, plan.digest) is None for plan in plans):
        raise UsageError(
            f"{job.out!r} already has other questions as split {job.split!r}; choose another --out or --split"
        )


def _remove_incomplete(job: Job, plans: list[ShardPlan]) -> None:
    """Remove the sidecars of shards with a missing question, so that these shards are written again."""
    entries = Ledger(job.out).entries()
    for plan in plans:
        names = (job.name(number) for number, _, _ in plan.lines)
        if any(name not in entries or entries[name].kind != Kind.DONE.value for name in names):
            filesystem.remove(_files(job, plan.name)[-1])


def _files(job: Job, name: str) -> tuple[str, str, str]:
    """Return the paths of a shard, its index and its sidecar, without which it is not finished."""
    path = filesystem.join(job.out, name)
    return path, manifest.index_path(path), manifest.stats_path(path)


def _summary(reasons: Counter[str]) -> str:
    """Return the most frequent reasons with their counts."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
