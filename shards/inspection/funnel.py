"""The filter funnel: how many items remain after download and after each filter.

The ledger has the outcome of every item; this module maps outcomes to the steps of the job.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.inspection.stats import Summary

LISTED, DOWNLOADED, EXTRACTED = "listed", "downloaded", "extracted"

_DECODING = ("timed-out", "crashed", "out-of-memory")
_FILTERS = (
    "no-captions",
    "captions-unreadable",
    "no-word-times",
    "no-words",
    "too-long",
    "duration-unknown",
    "category",
    "sparse-speech",
    "other-language",
    "bad-words",
    "uneven-words",
    "media-missing",
    "media-unreadable",
    "no-picture",
    "no-sound",
    "no-segments",
    "frame-missing",
    "too-alike",
    "too-empty",
    *_DECODING,
)
"""Outcomes of the steps after the download, in the order of the job; other outcomes belong to the download."""


@dataclass(frozen=True)
class Step:
    """The number of items that remain after a step, and the number that it rejected."""

    name: str
    left: int
    lost: int


def steps(summary: Summary) -> list[Step]:
    """Return the steps from the listed ids to the extracted videos; empty without a ledger."""
    reasons: dict[str, int] = {}
    done: set[str] = set()
    before = 0
    for kind, ended in summary.outcomes.items():
        for reason, count in ended.items():
            reasons[reason] = reasons.get(reason, 0) + count
            done |= {reason} if kind == "done" else set()
            if kind.startswith("failed") and reason not in _FILTERS:
                before += count
    remaining = sum(reasons.values())
    if not remaining:
        return []
    listed = [Step(LISTED, remaining, 0), Step(DOWNLOADED, remaining - before, before)]
    failed = {r for kind, ended in summary.outcomes.items() if kind.startswith("failed") for r in ended}
    remaining -= before
    rules = [r for r in reasons if r not in done and (r not in failed or r in _FILTERS)]
    for reason in sorted(rules, key=lambda r: _FILTERS.index(r) if r in _FILTERS else len(_FILTERS)):
        remaining -= reasons[reason]
        listed.append(Step(f"not {reason}", remaining, reasons[reason]))
    return [*listed, Step(EXTRACTED, remaining, 0)]
