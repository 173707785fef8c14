"""What is left of the items after every step: the ids, what was downloaded, each filter, segments, examples.

The ledger names the reason of every item; this module knows at which step of the way a reason strikes.
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
"""Reasons after the download, in the order in which the job looks; any other one strikes before or at the end."""


@dataclass(frozen=True)
class Step:
    """How many items are left after a step, and how many it took."""

    name: str
    left: int
    lost: int


def steps(summary: Summary) -> list[Step]:
    """The way from the ids to the extracted videos; empty if there is no ledger."""
    reasons: dict[str, int] = {}
    done: set[str] = set()
    before = 0
    for kind, ended in summary.outcomes.items():
        for reason, count in ended.items():
            reasons[reason] = reasons.get(reason, 0) + count
            done |= {reason} if kind == "done" else set()
            if kind.startswith("failed") and reason not in _FILTERS:
                before += count
    left = sum(reasons.values())
    if not left:
        return []
    found = [Step(LISTED, left, 0), Step(DOWNLOADED, left - before, before)]
    failed = {r for kind, ended in summary.outcomes.items() if kind.startswith("failed") for r in ended}
    left -= before
    rules = [r for r in reasons if r not in done and (r not in failed or r in _FILTERS)]
    for reason in sorted(rules, key=lambda r: _FILTERS.index(r) if r in _FILTERS else len(_FILTERS)):
        left -= reasons[reason]
        found.append(Step(f"not {reason}", left, reasons[reason]))
    return [*found, Step(EXTRACTED, left, 0)]
