"""The job on a portable runner: a job service and a pool of workers in other processes make the same shards."""

import pytest
from data_folders import content
from portable import service

pytestmark = pytest.mark.faults


def test_a_portable_runner_makes_the_same_shards(run, corpus, settings, undisturbed, tmp_path, faults):
    out = tmp_path / "out"
    with service(tmp_path / "log") as flags:
        ran = run.preprocess("--videos", corpus / "train", "--out", out, *settings, *flags)
    assert ran.status == 0, ran.err
    assert content(out) == content(undisturbed)
    faults.record("job on a portable runner with a worker pool", "finishes", "byte-equal to the local runner")
