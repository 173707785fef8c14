"""How a command that runs Beam owns its process, from its start to its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from shards.command_line import run_command

_owns_process = False


def run_and_leave(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its status at once.

    Beam's own threads would wait for workers that a failed job has already ended.
    """
    global _owns_process
    _owns_process = True
    status = run_command(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def owns_process() -> bool:
    """Whether this process runs a command, which starts no thread before its first pipeline and so can be forked."""
    return _owns_process
