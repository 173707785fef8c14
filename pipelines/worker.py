"""A local worker process: Beam's own, with a lifeline to the job that started it.

A worker that waits for work does not notice that its job was killed; this one looks every second and goes too.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import psutil
from apache_beam.runners.worker import sdk_worker_main

from pipelines.execution import JOB_VARIABLE, LOG_VARIABLE

_LOOK_SECONDS = 1.0


def _die_with_job(pid: int) -> None:
    try:
        job = psutil.Process(pid)
        while job.is_running() and job.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK_SECONDS)
    except psutil.NoSuchProcess:
        pass
    os._exit(1)


def _print_to(log: str) -> None:
    with contextlib.suppress(OSError), Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    _print_to(os.environ[LOG_VARIABLE])
    threading.Thread(target=_die_with_job, args=(int(os.environ[JOB_VARIABLE]),), daemon=True).start()
    sdk_worker_main.main(sys.argv)
