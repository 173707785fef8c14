"""A data folder in numbers: how its videos ended, what waits, and how to go on.

Everything comes from the manifest, the statistics of its generations, the per-video store and the note that a job
leaves at its start; nothing is asked of the job itself.
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
    """One outcome: how many videos ended so, and some of them."""

    outcome: str
    kind: str
    videos: int
    samples: list[str]


@dataclass(frozen=True)
class Report:
    """A data folder in numbers.

    `finished` videos have an outcome in a committed generation; `in_store` are committed in the per-video store, by a
    job that runs or was stopped, or because they wait to be packed. `hours` have passed since the last job began.
    `retry` is the command that retries what failed with a retryable error, `None` if nothing did.
    """

    finished: int
    in_store: int
    hours: float | None
    reasons: list[Reason]
    generations: int
    examples: int
    retry: str | None


def note_start(out: str, command: Sequence[str] = ()) -> None:
    """Leave word of when a job began, and with which words."""
    note = {"started": time.time(), "retry": retry_command(command) if command else None}
    filesystem.put_bytes(filesystem.join(out, NOTE), json.dumps(note).encode())


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
    """How the jobs of a data folder are doing. Raises `UsageError` if there never was one."""
    note = _read_note(filesystem.join(data, NOTE))
    committed = manifest.find(data)
    if not note and committed is None:
        raise UsageError(f"{data!r} has no manifest and no note of a job: no job ever worked there")
    sums = stats.sums_of(DataSet(data, [], committed)) if committed else Sums()
    ended = reasons(sums)
    return Report(
        sums.outcomes.total(),
        sum(1 for _ in VideoStore(data).paths()),
        (now - note["started"]) / 3600 if "started" in note else None,
        ended,
        len(committed.generations) if committed else 0,
        sum(g.examples for g in committed.generations) if committed else 0,
        note.get("retry") if any(r.kind == Kind.FAILED_RETRYABLE.value for r in ended) else None,
    )


def _read_note(path: str) -> dict[str, Any]:
    """The note of a job's start, empty without one. Raises `UserError` if it is damaged."""
    content = filesystem.read_existing(path)
    if content is None:
        return {}
    try:
        note = json.loads(content)
    except (ValueError, RecursionError):
        note = None
    started, retry = (note.get("started"), note.get("retry")) if isinstance(note, dict) else (None, None)
    is_time = isinstance(started, int | float) and not isinstance(started, bool) and 0 <= started < 1e12
    if not is_time or not isinstance(retry, str | None):
        raise UserError(f"{path!r} is damaged; remove it, the next job writes it again")
    return note


def reasons(sums: Sums) -> list[Reason]:
    """Outcomes by kind and number, with samples."""
    order = [kind.value for kind in Kind]
    counted = [(kind, outcome, n) for (kind, outcome), n in sums.outcomes.items() if n > 0]
    ranked = sorted(counted, key=lambda c: (order.index(c[0]) if c[0] in order else len(order), -c[2], c[1]))
    return [Reason(outcome, kind, n, sums.samples.get(outcome, [])) for kind, outcome, n in ranked]


def tables(report: Report) -> list[Table]:
    """The report for a terminal."""
    head = PlainTable("", "", show_header=False, title="job")
    head.add_row("videos with an outcome in a generation", f"{report.finished:,}")
    head.add_row("videos in the per-video store", f"{report.in_store:,}")
    if report.hours is not None:
        head.add_row("hours since the last job began", f"{report.hours:,.2f}")
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
