"""What workers report to the runner: how items ended, and how long each stage took.

Dataflow shows counters and distributions while a job runs, and keeps them; the ledger is what counts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from apache_beam.metrics import Metrics

OUTCOME, JOB, MILLISECONDS = "outcome", "job", "milliseconds"
"""Namespaces: one counter for each way to end, counters of what the job made, and distributions of wall time."""


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Report how long the block takes, also if it fails."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        spent(stage, time.perf_counter() - begun)


def spent(stage: str, seconds: float) -> None:
    """Report that a stage took so long for one item."""
    Metrics.distribution(MILLISECONDS, stage).update(round(1000 * seconds))


def count(namespace: str, name: str, number: int = 1) -> None:
    """Add to a counter."""
    Metrics.counter(namespace, name).inc(number)
