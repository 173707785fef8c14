"""The job on a portable runner: a job service and a pool of workers in other processes make the same shards."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_job_faults import command, content, finish, undisturbed

pytestmark = pytest.mark.faults
__all__ = ["command", "undisturbed"]

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def service(tmp_path):
    """Flags for a job service and a worker pool of our own."""
    job, pool = free_port(), free_port()
    # The pool starts a bare `python`, which must be this environment's.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    modules = (
        ["apache_beam.runners.portability.local_job_service_main", "--port", str(job)],
        ["apache_beam.runners.worker.worker_pool_main", "--service_port", str(pool)],
    )
    log = (tmp_path / "log").open("wb")
    started = [
        subprocess.Popen([sys.executable, "-m", *module], env=environment, cwd=ROOT, stdout=log, stderr=log)
        for module in modules
    ]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (answers(job) and answers(pool)):
        time.sleep(0.2)
    yield [
        "--runner=PortableRunner",
        f"--job_endpoint=127.0.0.1:{job}",
        "--environment_type=EXTERNAL",
        f"--environment_config=127.0.0.1:{pool}",
    ]
    for process in started:
        process.kill()
        process.wait()
    log.close()


def test_a_portable_runner_makes_the_same_shards(command, undisturbed, service, tmp_path, faults):
    out = tmp_path / "out"

    def portable(folder):
        return [argument for argument in command(folder, *service) if not argument.startswith("--direct_num_workers")]

    finish(portable, out)
    assert content(out) == undisturbed[0]
    faults.record("job on a portable runner with a worker pool", "finishes", "byte-equal to the local runner")
