"""Several processes on this machine as one run: the same losses, and what kills, damage and other hosts do to it."""

import importlib.util
import re
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from model import published
from shards.errors import run_command
from train import pretrain
from train.metrics import MetricsLog

ROOT = Path(__file__).parent.parent.parent
STEPS = 12
SMALL = (
    *("--adapt-to-data", "--batch-size", "4", "--model.hidden-size", "32", "--model.sequence-length", "192"),
    *("--optimizer.total-steps", "100", "--log-every", "1", "--checkpoint-every", "4", "--keep", "9"),
    *("--mesh.fsdp", "2", "--steps", str(STEPS)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("reader_data", ROOT / "tests" / "shards" / "reader_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_data(tmp_path_factory.mktemp("hosts") / "data", [5, 4])


@pytest.fixture(scope="module")
def start(run, data):
    """Start the processes of a training run, each with its share of four simulated devices; kill them in the end."""
    started = []

    def begin(workdir, count, *more):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        devices = f"--xla_force_host_platform_device_count={4 // count} --xla_backend_optimization_level=0"
        command = ["tiny", "--data", data, "--workdir", workdir, *SMALL, *more]
        if count > 1:
            command += ["--coordinator", address, "--hosts", count]
        hosts = [("--host", host) for host in range(count)] if count > 1 else [()]
        processes = [
            run.start("train.pretrain", *command, *host, env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices})
            for host in hosts
        ]
        started.extend(processes)
        return processes

    yield begin
    for process in started:
        process.send_signal(signal.SIGKILL)


def finished(start, workdir, count, *more):
    """Run to the end; what the first process said."""
    ran = [process.wait() for process in start(workdir, count, *more)]
    assert [each.status for each in ran] == [0] * count, ran
    return ran[0].err


def losses(workdir):
    return {line["step"]: line["loss"] for line in MetricsLog(str(workdir / "metrics.jsonl")).lines()}


def assert_same_losses(workdir, expected):
    found = losses(workdir)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-5)


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """One process with all four devices."""
    workdir = tmp_path_factory.mktemp("alone")
    finished(start, workdir, 1)
    return workdir


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_two_processes_are_one_run_and_may_be_killed_or_become_one(start, alone, tmp_path):
    expected, workdir = losses(alone), tmp_path / "run"
    processes = start(workdir, 2)
    wait_for(processes, workdir / "checkpoints" / "4")
    for process in processes:
        process.kill()
    assert max(losses(workdir)) < STEPS
    said = finished(start, workdir, 2, "--mesh.fsdp", "1")
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
def test_a_notice_to_one_process_stops_both_at_one_step_and_one_goes_on(start, alone, tmp_path):
    workdir = tmp_path / "run"
    slow = ("--steps", "100000")
    processes = start(workdir, 2, *slow)
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
    assert "continuing from step 4" in finished(start, workdir, 1, "--mesh.fsdp", "4")
    assert_same_losses(workdir, losses(alone))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--hosts", "2"), "--hosts 2 --host None need --coordinator HOST:PORT"),
        (("--coordinator", "here:1"), "--coordinator here:1 needs --hosts and --host"),
        (("--coordinator", "here:1", "--hosts", "2", "--host", "2"), "--host 2 is none of 0 to 1"),
        (("--coordinator", "auto", "--host", "0"), "--coordinator auto finds --hosts and --host by itself"),
    ],
)
def test_processes_that_cannot_be_are_one_sentence(data, tmp_path, capsys, more, sentence):
    argv = ["tiny", "--data", str(data), "--workdir", str(tmp_path), *more]
    assert run_command(lambda: pretrain.main(argv)) == 2
    assert sentence in capsys.readouterr().err
