"""Report the status of a data folder: the outcomes of its videos, pending work, and how to retry failures.

The report is read from the manifest, the statistics of its generations, the per-video store, and a note that each job
writes when it starts; the job itself is not contacted.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from shards.dataset import manifest
from shards.dataset.location import DataSet
from shards.dataset.sums import Sums
from shards.dataset.video_store import VideoStore
from shards.inspection import stats
from shards.inspection.plain_table import PlainTable
from shards.outcomes import Kind, Outcome
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError

NOTE = "job.json"


@dataclass(frozen=True)
class Reason:
    """One outcome, the number of videos with it, and some of their ids."""

    outcome: str
    kind: str
    videos: int
    samples: list[str]


@dataclass(frozen=True)
class Report:
    """The status of a data folder.

    `finished` videos have an outcome in a committed generation; `in_store` are in the per-video store, because the job
    is running or was stopped, or because they have pending segments. `hours` have passed since the last job started.
    `retry` is the command that retries videos that failed with a retryable error, `None` if there are none.
    """

    finished: int
    in_store: int
    hours: float | None
    reasons: list[Reason]
    generations: int
    examples: int
    retry: str | None


def note_start(out: str, command: Sequence[str] = ()) -> None:
    """Write the note of a job's start time and command."""
    note = {"started": time.time(), "retry": retry_command(command) if command else None}
    filesystem.put_bytes(filesystem.join(out, NOTE), json.dumps(note).encode())


def retry_command(command: Sequence[str]) -> str:
    """Return the command that retries failures; flags for yt-dlp, which may contain passwords, are left out."""
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
    """Return the status of a data folder. Raises `UsageError` if no job has used the folder."""
    note = _read_note(filesystem.join(data, NOTE))
    committed = manifest.find(data)
    if not note and committed is None:
        raise UsageError(f"{data!r} has no manifest and no {NOTE}; give the data folder of a job")
    sums = stats.sums_of(DataSet(data, [], committed)) if committed else Sums()
    outcomes = reasons(sums)
    return Report(
        sums.outcomes.total(),
        sum(1 for _ in VideoStore(data).paths()),
        (now - note["started"]) / 3600 if "started" in note else None,
        outcomes,
        len(committed.generations) if committed else 0,
        sum(g.examples for g in committed.generations) if committed else 0,
        note.get("retry") if any(r.kind == Kind.FAILED_RETRYABLE.value for r in outcomes) else None,
    )


def _read_note(path: str) -> dict[str, Any]:
    """Return the note of a job's start, empty without one. Raises `UserError` if it is damaged."""
    content = filesystem.read_existing(path)
    if content is None:
        return {}
    try:
        note = json.loads(content)
    except (ValueError, RecursionError):
        note = None
    if not isinstance(note, dict) or not _is_time(note.get("started")) or not isinstance(note.get("retry"), str | None):
        raise UserError(f"{path!r} is damaged; remove it, the next job writes it again")
    return note


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12


def reasons(sums: Sums) -> list[Reason]:
    """Return the outcomes sorted by kind and number of videos, with sample ids."""
    order = [kind.value for kind in Kind]
    counts = [(kind, outcome, n) for (kind, outcome), n in sums.outcomes.items() if n > 0]
    ranked = sorted(counts, key=lambda c: (order.index(c[0]) if c[0] in order else len(order), -c[2], c[1]))
    return [Reason(outcome, kind, n, sums.samples.get(outcome, [])) for kind, outcome, n in ranked]


def tables(report: Report) -> list[Table]:
    """Return the report as tables for a terminal."""
    head = PlainTable("", "", show_header=False, title="job")
    head.add_row("videos with an outcome in a generation", f"{report.finished:,}")
    head.add_row("videos in the per-video store", f"{report.in_store:,}")
    if report.hours is not None:
        head.add_row("hours since the last job started", f"{report.hours:,.2f}")
    head.add_row("generations, examples", f"{report.generations}, {report.examples:,}")
    rows = PlainTable("kind", "outcome", "videos", "for example", "meaning")
    known = {outcome.value: outcome.sentence for outcome in Outcome}
    for reason in report.reasons:
        rows.add_row(
            reason.kind,
            reason.outcome,
            f"{reason.videos:,}",
            ", ".join(reason.samples),
            known.get(reason.outcome, ""),
        )
    return [head, rows]
