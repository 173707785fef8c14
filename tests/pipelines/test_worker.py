"""Local worker processes: they end with their job, hold nothing of it, and serve processes that cannot be forked."""

import fcntl
import json
from pathlib import Path

import psutil
import pytest

from pipelines import preprocess
from pipelines.runner.local_workers import PROCESS_NAME
from shards.command_line import run_command


def workers_of(job):
    return [process for process in job.family() if process.name() == PROCESS_NAME]


def test_workers_end_with_a_job_that_was_killed(start, tmp_path):
    job = start(tmp_path / "out", workers=2)
    job.wait_until(lambda: len(workers_of(job)) == 2)
    everyone = job.family()
    job.kill()
    _, alive = psutil.wait_procs(everyone, timeout=20)
    assert not alive, [process.name() for process in alive]


def test_the_server_of_workers_holds_no_lock(start, tmp_path):
    out = tmp_path / "out"
    job = start(out, workers=2)
    job.wait_until(lambda: len(workers_of(job)) == 2)
    [server] = [process for process in job.family() if process.pid == workers_of(job)[0].ppid()]
    assert out / ".lock" not in [link.readlink() for link in Path(f"/proc/{server.pid}/fd").iterdir()]
    with (out / ".lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert job.wait().status == 0


def test_processes_with_threads_get_workers_of_a_new_python(corpus, settings, tmp_path, capsys):
    """This process has loaded much and cannot be forked; the command runs inside it."""
    out = tmp_path / "out"
    argv = ["--videos", str(corpus / "train"), "--out", str(out), *settings, "--direct_num_workers=2", "--limit=2"]
    assert run_command(lambda: preprocess.main(argv)) == 0, capsys.readouterr().err
    assert json.loads((out / "manifest.json").read_text())["generations"][0]["videos"] == 2
