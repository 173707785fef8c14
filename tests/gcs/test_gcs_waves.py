"""Waves in a bucket: jobs share them by leases, and one that was killed is replaced when its lease has expired."""

import time

import pytest
from data_folders import content
from emulator import SHORT_LEASES

from shards import filesystem, object_store, tally, waves

WAVE = "--wave=2"


@pytest.mark.timeout(400)
def test_two_jobs_share_the_waves_and_one_replaces_the_other(bucket, start, finish, tmp_path):
    local, remote = tmp_path / "alone", f"{bucket}/data"
    finish(local, WAVE)
    first, second = (start(remote, WAVE, before=SHORT_LEASES) for _ in range(2))
    first.wait_until(lambda: filesystem.list_files(f"{remote}/ledger/g0000"))
    first.kill()
    ran = second.wait(250)
    assert ran.status == 0, ran.err
    assert content(remote) == content(local)
    assert waves.unfinished(remote) == []
    assert tally.of_data(remote).ids.size == 6


def test_a_lease_is_asked_for_as_long_as_one_has_patience(bucket, monkeypatch):
    lock = f"{bucket}/out/.lock"
    object_store._Lease(lock).take(watch=False)
    begun = time.monotonic()
    with pytest.raises(filesystem.BusyError), filesystem.exclusive(lock, patience=0):
        pass
    assert time.monotonic() - begun < 5, "an impatient job is told at once"
    monkeypatch.setattr(object_store, "LEASE_SECONDS", 2.0)
    other = f"{bucket}/other/.lock"
    object_store._Lease(other).take(watch=False)
    with filesystem.exclusive(other, patience=30):
        assert filesystem.exists(other)
