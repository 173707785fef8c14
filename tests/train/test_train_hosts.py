"""Several processes on this machine as one run: the same losses, and what kills, damage and other hosts do to it."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
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
def start(data, tmp_path_factory):
    """Starts the processes of a run, each with its share of four simulated devices; they are killed in the end."""
    started, logs = [], tmp_path_factory.mktemp("logs")

    def begin(workdir, count, *more):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // count} --xla_backend_optimization_level=0",
        }
        processes = []
        for host in range(count):
            together = ("--coordinator", address, "--hosts", str(count), "--host", str(host)) if count > 1 else ()
            command = ["tiny", "--data", str(data), "--workdir", str(workdir), *SMALL, *more, *together]
            log = (logs / f"{len(started)}").open("w")
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "train.pretrain", *command],
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
            started.append((processes[-1], log))
        return processes

    def said(process):
        log = next(log for each, log in started if each is process)
        return Path(log.name).read_text()

    begin.said = said
    yield begin
    for process, log in started:
        process.kill()
        process.wait()
        log.close()


def finished(start, workdir, count, *more):
    """Run to the end; what the first process said."""
    processes = start(workdir, count, *more)
    for process in processes:
        assert process.wait(250) == 0, start.said(process)[-3000:]
    return start.said(processes[0])


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
    finished(start, tmp_path / "whole", 2)
    assert_same_losses(tmp_path / "whole", expected)
    weights = [published.load(place / "export").params["head"]["kernel"] for place in (alone, tmp_path / "whole")]
    np.testing.assert_allclose(*weights, atol=2e-3)

    processes = start(workdir, 2)
    wait_for(start, processes, workdir / "checkpoints" / "4")
    for process in processes:
        process.kill()
        process.wait()
    assert max(losses(workdir)) < STEPS
    said = finished(start, workdir, 2, "--mesh.fsdp", "1")
    assert re.search(r"continuing from step \d+", said)
    assert_same_losses(workdir, expected)


def wait_for(start, processes, path):
    """Until a checkpoint is complete; fails if a process ends before."""
    end = time.monotonic() + 200
    while not path.exists():
        for process in processes:
            assert process.poll() is None, start.said(process)[-3000:]
        assert time.monotonic() < end, start.said(processes[0])[-3000:]
        time.sleep(0.02)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_notice_to_one_process_stops_both_at_one_step_and_one_goes_on(start, alone, tmp_path):
    workdir = tmp_path / "run"
    slow = ("--steps", "100000")
    processes = start(workdir, 2, *slow)
    wait_for(start, processes, workdir / "checkpoints" / "4")
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        assert process.wait(120) == 0, start.said(process)[-3000:]
    stopped = re.search(r"stopped at step (\d+) of 100000; the same command continues", start.said(processes[0]))
    assert (workdir / "checkpoints" / stopped[1]).is_dir()
    assert start.said(processes[1]).count("stopped at step") == 0
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
