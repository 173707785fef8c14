"""A bucket whose service goes away in the middle of a job comes back to a job that waited."""

from benchmarks.faults import audit, make_work, run_quietly, run_through_restart


def test_a_job_waits_for_a_service_that_restarts(lasting, lasting_bucket, run, tmp_path, faults):
    work = make_work(run, tmp_path, 3)
    run_quietly(work, str(tmp_path / "quiet"))
    run_through_restart(work, f"{lasting_bucket}/data", lasting)
    found = audit(f"{lasting_bucket}/data", work.names)
    assert (found.videos, found.lost, found.twice) == (3, 0, 0)
    assert found.content == audit(str(tmp_path / "quiet"), work.names).content
    faults.record("the object store restarted in the middle of a job", "finishes", "byte-equal")
