"""The scripts that start a run on GPU machines, with two real processes here in the place of two nodes."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from train.metrics.formatting import MetricsLog

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "pipelines" / "deploy"
TINY = (
    *("tiny", "--adapt-to-data", "--batch-size", "4", "--model.hidden-size", "32", "--model.sequence-length", "192"),
    *("--optimizer.total-steps", "100", "--log-every", "1", "--checkpoint-every", "4"),
)
SRUN = """#!/usr/bin/env bash
# One task for each node, all on this machine.
tasks=$SLURM_NTASKS
while [ "${1#--}" != "$1" ]; do
  echo "$1" >> "$CALLS"
  case "$1" in
    *=*) shift ;;
    --ntasks) tasks=$2; shift 2 ;;
    *) shift 2 ;;
  esac
done
export SLURM_STEP_NODELIST=localhost SLURM_NTASKS=$tasks SLURM_LOCALID=0
for task in $(seq 0 $((tasks - 1))); do
  SLURM_PROCID=$task "$@" &
  pids+=($!)
done
worst=0
for pid in "${pids[@]}"; do
  wait "$pid"
  status=$?
  [ "$status" -gt "$worst" ] && worst=$status
done
exit "$worst"
"""
SCONTROL = '#!/usr/bin/env bash\necho "scontrol $*" >> "$CALLS"\n'


def free_port(among=None):
    """A port that nothing listens on, one of `among` if given."""
    while True:
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", random.choice(among) if among else 0))
            except OSError:
                continue
            return free.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Start a script with variables, its output in a file; what still runs is killed in the end."""
    started = []

    def begin(command, **variables):
        devices = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices, "PYTHON": sys.executable, **variables}
        log = (tmp_path / f"log{len(started)}").open("w+")
        process = subprocess.Popen(
            ["bash", *map(str, command)], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        started.append((process, log))
        return process, Path(log.name)

    yield begin
    for process, log in started:
        for member in trainers(process):
            member.kill()
        process.kill()
        process.wait()
        log.close()


def trainers(process):
    """The processes under a script, parents first; none when it has ended."""
    try:
        return [each for each in psutil.Process(process.pid).children(recursive=True) if "python" in each.name()]
    except psutil.NoSuchProcess:
        return []


def wait_until(condition, log, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def steps(workdir):
    return [line["step"] for line in MetricsLog(str(workdir / "metrics.jsonl")).lines()]


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_slurm_requeues_the_job_until_it_has_finished(start, small_data, tmp_path):
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    job = free_port(range(61440, 65536)) - 61440
    workdir, calls = tmp_path / "run", tmp_path / "calls"
    slurm = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "WORKDIR": str(workdir),
        "SLURM_JOB_ID": str(job),
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_GPUS_ON_NODE": "8",
    }
    batch = (DEPLOY / "slurm.sbatch", *TINY, "--data", small_data)
    process, log = start((*batch, "--steps", 100_000), **slurm)
    wait_until((workdir / "checkpoints" / "4").exists, log)
    # The child of a training process; its parent tells the other one.
    trainers(process)[-1].kill()
    assert process.wait(120) == 0, log.read_text()
    assert calls.read_text().splitlines()[-1] == f"scontrol requeue {job}"
    assert "was ended by SIGKILL, so process" in log.read_text()
    assert "start 0 ended with status 1; resuming from the newest checkpoint" in log.read_text()
    trained = len(steps(workdir))

    # Slurm starts the file again, and here the run ends.
    process, log = start((*batch, "--steps", trained + 4), **slurm, SLURM_RESTART_COUNT="1")
    assert process.wait(240) == 0, log.read_text()
    assert "continuing from step" in log.read_text()
    assert calls.read_text().count("scontrol") == 1
    assert steps(workdir) == list(range(1, trained + 5))

    # An option that is wrong is not tried again, and a run that fails for ever is given up.
    process, log = start((*batch, "--no-such-option"), **slurm)
    assert (process.wait(60), calls.read_text().count("scontrol")) == (2, 1), log.read_text()
    process, log = start(batch, **slurm | {"PYTHON": "/bin/false"}, SLURM_RESTART_COUNT="100")
    assert (process.wait(60), calls.read_text().count("scontrol")) == (1, 1), log.read_text()


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_processes_without_slurm_restart_and_stop_together(start, small_data, tmp_path):
    workdir = tmp_path / "run"
    address = f"127.0.0.1:{free_port()}"
    command = (DEPLOY / "launch_processes.sh", "train.pretrain", *TINY, "--data", small_data, "--workdir", workdir)
    both = [
        start((*command, "--steps", 100_000), COORDINATOR=address, HOSTS="2", HOST=str(host), PAUSE="3")
        for host in range(2)
    ]
    wait_until((workdir / "checkpoints" / "4").exists, both[0][1])
    for member in trainers(both[1][0]):
        member.kill()
    restarted = "start 0 of process {} ended with status {}; resuming from the newest checkpoint"
    wait_until(lambda: restarted.format(0, 1) in both[0][1].read_text(), both[0][1])
    wait_until(lambda: restarted.format(1, 137) in both[1][1].read_text(), both[1][1])
    assert "error: process 1 of 2 died" in both[0][1].read_text()
    wait_until(lambda: "continuing from step" in both[0][1].read_text(), both[0][1])
    before = len(steps(workdir))
    wait_until(lambda: len(steps(workdir)) > before + 2, both[0][1])
    both[1][0].send_signal(signal.SIGTERM)
    assert [process.wait(120) for process, _ in both] == [0, 0], both[0][1].read_text()
    assert "the same command continues" in both[0][1].read_text()


def test_wrong_options_and_repeated_failures_end_the_job(start):
    variables = {"COORDINATOR": "127.0.0.1:1", "HOSTS": "2", "HOST": "1", "PAUSE": "0.01"}
    process, log = start((DEPLOY / "launch_processes.sh", "train.pretrain", "tiny", "--no-such-option"), **variables)
    assert process.wait(60) == 2
    assert "restart" not in log.read_text()
    process, log = start((DEPLOY / "launch_processes.sh", "x"), **variables | {"PYTHON": "/bin/false", "RESTARTS": "2"})
    assert process.wait(60) == 1
    assert log.read_text().count("ended with status 1") == 3
    assert "gave up after 2 restarts" in log.read_text()
    process, log = start((DEPLOY / "launch_processes.sh", "x"), HOSTS="2")
    assert process.wait(60) != 0
    assert "COORDINATOR: HOST:PORT of the first machine" in log.read_text()
