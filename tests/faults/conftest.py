"""The job whose faults are tested, and what it makes when nothing disturbs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Job


@pytest.fixture(scope="session")
def start(run, corpus, settings) -> Callable[..., Job]:
    """Start the job over the six videos of the corpus into a folder, with more flags."""

    def begin(out: Path, *more: object, workers: int = 1, **options: object) -> Job:
        flags = [*settings, f"--direct_num_workers={workers}", *more]
        return run.start("pipelines.preprocess", "--videos", corpus / "train", "--out", out, *flags, **options)

    return begin


@pytest.fixture(scope="session")
def finish(start) -> Callable[..., None]:
    """Run the job to its end."""

    def complete(out: Path, *more: object, **options: object) -> None:
        ran = start(out, *more, **options).wait()
        assert ran.status == 0, ran.err

    return complete


@pytest.fixture(scope="session")
def undisturbed(finish, tmp_path_factory) -> Path:
    """The data folder of a job that nothing disturbed, with its segments kept."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(out, "--keep-segments")
    return out
