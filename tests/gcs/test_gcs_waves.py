"""Waves in a bucket: jobs share them by leases, and one that was killed is replaced when its lease has expired."""

import subprocess
import time

import pytest
from test_gcs_job import ROOT, command, content, corpus

from shards import filesystem, object_store, tally, waves

__all__ = ["corpus"]


def wave_command(corpus, out):
    arguments = command(corpus / "train", out, corpus / "tokenizer.json", "--wave=2", "--direct_running_mode=in_memory")
    return [argument for argument in arguments if argument != "--direct_num_workers=2"] + ["--direct_num_workers=1"]


@pytest.mark.timeout(400)
def test_two_jobs_share_the_waves_and_one_replaces_the_other(bucket, corpus, tmp_path):
    local, remote = str(tmp_path / "alone"), f"{bucket}/data"
    subprocess.run(wave_command(corpus, local), cwd=ROOT, check=True, stderr=subprocess.DEVNULL, timeout=200)
    first, second = (
        subprocess.Popen(wave_command(corpus, remote), cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not filesystem.list_files(f"{remote}/ledger/g0000"):
        time.sleep(0.2)
    first.kill()
    first.communicate()
    said = second.communicate(timeout=250)[1]
    assert second.returncode == 0, said
    assert content(remote) == content(local)
    assert waves.unfinished(remote) == []
    assert tally.of_data(remote).ids.size == len(list((corpus / "train").glob("*.mp4")))


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
