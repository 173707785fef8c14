"""Several processes on this machine as one run: the same losses, and what kills, damage and other hosts do to it."""

import re
import shutil
import signal

import numpy as np
import pytest

from model import published
from shards.command_line import run_command
from tests.training_runs import losses
from train import pretrain

STEPS = 12


def finished(start_processes, workdir, count, *more):
    """Run to the end; what the first process said."""
    ran = [process.wait() for process in start_processes(workdir, count, *more)]
    assert [each.status for each in ran] == [0] * count, ran
    return ran[0].err


def assert_same_losses(workdir, expected):
    found = losses(workdir)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-5)


@pytest.fixture(scope="module")
def alone(start_processes, tmp_path_factory):
    """One process with all four devices."""
    workdir = tmp_path_factory.mktemp("alone")
    finished(start_processes, workdir, 1)
    return workdir


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_two_processes_are_one_run_and_may_become_one(start_processes, alone, tmp_path):
    expected, workdir = losses(alone), tmp_path / "run"
    processes = start_processes(workdir, 2)
    wait_for(processes, workdir / "checkpoints" / "4")
    for process in processes:
        process.kill()
    assert max(losses(workdir)) < STEPS
    said = finished(start_processes, workdir, 2, "--mesh.fsdp", "1")
    assert re.search(r"continuing from step \d+", said)
    # The first steps are those of an undisturbed run of two processes, the others of one on another mesh.
    assert_same_losses(workdir, expected)
    weights = [published.load(place / "export").params["head"]["kernel"] for place in (alone, workdir)]
    np.testing.assert_allclose(*weights, atol=2e-3)


def wait_for(processes, path):
    """Wait until a checkpoint is complete; fails if a process ends before."""
    for process in processes:
        process.wait_until(path.exists, 200)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_notice_to_one_process_stops_both_at_one_step(start_processes, alone, tmp_path):
    workdir = tmp_path / "run"
    processes = start_processes(workdir, 2, steps=100_000)
    wait_for(processes, workdir / "checkpoints" / "4")
    processes[1].send_signal(signal.SIGTERM)
    first, second = [process.wait(120) for process in processes]
    assert (first.status, second.status) == (0, 0), first.err + second.err
    stopped = re.search(r"stopped at step (\d+) of 100000; the same command continues", first.err)
    assert (workdir / "checkpoints" / stopped[1]).is_dir()
    assert second.err.count("stopped at step") == 0
    for newer in (workdir / "checkpoints").iterdir():
        if int(newer.name) > 4:
            shutil.rmtree(newer)
    assert "continuing from step 4" in finished(start_processes, workdir, 1, "--mesh.fsdp", "4")
    assert_same_losses(workdir, losses(alone))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--hosts", "2"), "--hosts 2 --host None need --coordinator HOST:PORT"),
        (("--coordinator", "here:1"), "--coordinator here:1 needs --hosts and --host"),
        (("--coordinator", "here:1", "--hosts", "2", "--host", "2"), "--host 2 is not one of 0 to 1"),
        (("--coordinator", "auto", "--host", "0"), "--coordinator auto finds --hosts and --host by itself"),
    ],
)
def test_processes_that_cannot_be_are_one_sentence(small_data, tmp_path, capsys, more, sentence):
    argv = ["tiny", "--data", str(small_data), "--workdir", str(tmp_path), *more]
    assert run_command(lambda: pretrain.main(argv)) == 2
    assert sentence in capsys.readouterr().err
