"""How a job is doing: `python -m pipelines.status DATA`, while it runs or after it.

Everything comes from the ledger, the manifest and the note that the job leaves at its start; nothing is asked of the
job itself.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from ingest.outcomes import Kind, Outcome
from shards import command_line, filesystem, manifest, tally, waves
from shards.errors import UsageError, run_command
from shards.tally import Tally

NOTE = "job.json"
_SAMPLES = 3


@dataclass(frozen=True)
class Status:
    """What became of the videos of a data folder so far."""

    data: Annotated[str, tyro.conf.Positional]
    """A data folder, on a disk or in a bucket."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Reason:
    """One outcome: how many videos ended so, and some of them."""

    outcome: str
    kind: str
    videos: int
    samples: list[str]


@dataclass(frozen=True)
class Report:
    """A job in numbers; `per_hour` and `hours_left` are None where nothing was finished since its start.

    `retry` is the command that tries again what failed for now, None if nothing did.
    """

    listed: int | None
    finished: int
    per_hour: float | None
    hours_left: float | None
    seconds_since_last: float | None
    reasons: list[Reason]
    unfinished_waves: list[int]
    generations: int
    examples: int
    retry: str | None


def note_start(out: str, items: int, command: Sequence[str] = ()) -> None:
    """Leave word of how many videos a job was given, when it began, and with which words."""
    note = {"items": items, "started": time.time(), "retry": retry_command(command) if command else None}
    filesystem.write_bytes(filesystem.join(out, NOTE), json.dumps(note).encode())


def retry_command(command: Sequence[str]) -> str:
    """The command that tries again what failed for now; flags for yt-dlp, which may hold passwords, are left out."""
    words = ["python", "-m", "pipelines.preprocess"]
    hidden = False
    for word in command:
        flag, value, _ = word.partition("=")
        flag = flag.replace("_", "-")
        if hidden:
            hidden = False
        elif flag == "--yt-dlp":
            words.append("--yt-dlp=...")
            hidden = not value
        elif flag != "--retry-failed":
            words.append(shlex.quote(word))
    return " ".join([*words, "--retry-failed"])


def report(data: str, now: float) -> Report:
    """How the job of a data folder is doing. Raises `UsageError` if there never was one."""
    found = tally.of_data(data)
    finished = found.ids.size
    path = filesystem.join(data, NOTE)
    note = json.loads(filesystem.read_bytes(path)) if filesystem.exists(path) else {}
    held = manifest.load(data) if filesystem.exists(filesystem.join(data, manifest.NAME)) else None
    if not finished and not note and held is None:
        raise UsageError(f"{data!r} has no ledger and no manifest: no job ever worked there")
    ended = reasons(found)
    started, listed = note.get("started"), note.get("items")
    since = found.at[found.at >= int(started)] if started else found.at[:0]
    rate = 3600 * since.size / max(int(since.max()) - started, 1.0) if since.size else None
    left = (listed - finished) / rate if rate and listed is not None and listed > finished else None
    return Report(
        listed,
        finished,
        rate,
        left,
        now - int(since.max()) if since.size else None,
        ended,
        waves.unfinished(data),
        len(held.generations) if held else 0,
        sum(g.examples for g in held.generations) if held else 0,
        note.get("retry") if any(r.kind == Kind.FAILED_RETRYABLE.value for r in ended) else None,
    )


def reasons(found: Tally) -> list[Reason]:
    """Outcomes by kind and number, with samples."""
    counts: Counter[tuple[str, str]] = Counter()
    samples: defaultdict[str, list[str]] = defaultdict(list)
    for reason, count in found.counts().items():
        counts[reason.kind, reason.outcome] += count
    for reason, names in found.sampled().items():
        samples[reason.outcome] += names
    order = [kind.value for kind in Kind]
    ranked = sorted(counts, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), -counts[key]))
    return [Reason(outcome, kind, counts[kind, outcome], samples[outcome][:_SAMPLES]) for kind, outcome in ranked]


def tables(found: Report) -> list[Table]:
    """The report for a terminal."""
    head = Table("", "", show_header=False, title="job")
    total = "" if found.listed is None else f" of {found.listed:,}"
    head.add_row("videos with an outcome", f"{found.finished:,}{total}")
    if found.per_hour is not None:
        head.add_row("videos per hour", f"{found.per_hour:,.0f}")
        head.add_row("seconds since the last one", f"{found.seconds_since_last:,.0f}")
    if found.hours_left is not None:
        head.add_row("hours left", f"{found.hours_left:,.2f}")
    if found.unfinished_waves:
        head.add_row("waves that are not finished", f"{len(found.unfinished_waves):,}")
    head.add_row("generations, examples", f"{found.generations}, {found.examples:,}")
    rows = Table("kind", "outcome", "videos", "for example", "meaning")
    known = {outcome.value: outcome.sentence for outcome in Outcome}
    for reason in found.reasons:
        rows.add_row(
            reason.kind,
            reason.outcome,
            f"{reason.videos:,}",
            ", ".join(reason.samples),
            known.get(reason.outcome, ""),
        )
    return [head, rows]


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    asked = command_line.parse(tyro.cli, Status, "pipelines.status", argv)
    command_line.require_folder("DATA", asked.data)
    console = Console(highlight=False)
    found = report(asked.data, time.time())
    if asked.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(found), indent=1) + "\n")
        return 0
    for table in tables(found):
        console.print(table)
    if any(reason.kind == Kind.FAILED_RETRYABLE.value for reason in found.reasons):
        said = found.retry or "the job's own command with --retry-failed"
        console.print(f"What failed for now is tried again by:\n  {said}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
