"""The job on portable runners: on a job service with workers in other processes, and with LOOPBACK in the command's own."""

import pytest
from data_folders import content
from portable import service

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("place", ["pool", "loopback"])
def test_a_portable_runner_makes_the_same_shards(run, corpus, settings, undisturbed, tmp_path, faults, place):
    out = tmp_path / "out"
    with service(tmp_path / "log") as flags:
        if place == "loopback":
            flags = [flag for flag in flags if not flag.startswith("--environment_")] + ["--environment_type=LOOPBACK"]
        ran = run.preprocess("--videos", corpus / "train", "--out", out, *settings, *flags)
    assert ran.status == 0, ran.err
    assert content(out) == content(undisturbed)
    faults.record(f"job on a portable runner, workers: {place}", "finishes", "byte-equal to the local runner")
