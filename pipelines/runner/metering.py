"""Report outcomes and durations of stages to the runner as Beam metrics.

Dataflow shows these counters and distributions while a job runs; the authoritative record is the ledger.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from apache_beam.metrics.metric import Metrics

OUTCOME, JOB, MILLISECONDS = "outcome", "job", "milliseconds"
"""Namespaces: one counter per outcome, counters of what the job produced, and distributions of wall time."""


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Report the wall time of the block, also if it fails."""
    start = time.perf_counter()
    try:
        yield
    finally:
        record_seconds(stage, time.perf_counter() - start)


def record_seconds(stage: str, seconds: float) -> None:
    """Report the time that a stage took for one item."""
    Metrics.distribution(MILLISECONDS, stage).update(round(1000 * seconds))


def count(namespace: str, name: str, number: int = 1) -> None:
    """Add to a counter."""
    Metrics.counter(namespace, name).inc(number)
