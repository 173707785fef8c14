"""Run a command that owns its process, so that it may fork workers and exit without waiting for Beam's threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from shards.command_line import run_command

_owns_process = False


def run_and_leave(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit the process with its status immediately.

    A regular exit would wait for Beam's threads, which wait for workers that a failed job has already ended.
    """
    global _owns_process
    _owns_process = True
    status = run_command(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def owns_process() -> bool:
    """Return whether this process runs a command, which starts no thread before its pipeline and can be forked."""
    return _owns_process
