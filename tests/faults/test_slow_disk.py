"""A disk that is slow to flush delays a job and changes nothing."""

import pytest

from benchmarks.faults import audit, make_work, run_on_slow_disk, run_quietly

pytestmark = pytest.mark.faults


def test_a_slow_disk_changes_nothing(run, tmp_path, faults):
    work = make_work(run, tmp_path, 3)
    run_quietly(work, str(tmp_path / "quiet"))
    run_on_slow_disk(work, str(tmp_path / "slow"))
    quiet, slow = (audit(str(tmp_path / name), work.names) for name in ("quiet", "slow"))
    assert (slow.videos, slow.lost, slow.twice) == (3, 0, 0)
    assert slow.content == quiet.content
    faults.record("a disk whose flushes take up to 0.3 s", "finishes", "byte-equal")
