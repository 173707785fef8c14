"""A job service and a pool of workers as processes of their own, as a portable runner needs them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def answers(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen) -> None:
    """Kill a process and everything it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=20)
    process.kill()
    process.wait()


@contextlib.contextmanager
def service(log: Path) -> Iterator[list[str]]:
    """Flags of the job for a job service and a worker pool that live as long as the block; `log` takes their output."""
    job, pool = free_port(), free_port()
    # The pool starts a bare `python`, which must be this environment's.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    modules = (
        ["apache_beam.runners.portability.local_job_service_main", "--port", str(job)],
        ["apache_beam.runners.worker.worker_pool_main", "--service_port", str(pool)],
    )
    with log.open("ab") as said:
        started = [
            subprocess.Popen([sys.executable, "-m", *module], env=environment, cwd=ROOT, stdout=said, stderr=said)
            for module in modules
        ]
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (answers(job) and answers(pool)):
                time.sleep(0.2)
            yield [
                "--runner=PortableRunner",
                f"--job_endpoint=127.0.0.1:{job}",
                "--environment_type=EXTERNAL",
                f"--environment_config=127.0.0.1:{pool}",
            ]
        finally:
            for process in started:
                _end(process)
