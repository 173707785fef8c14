"""Kill this process, as `kill -9` does, just before it changes a file under FOLDER in a way that is not in the list STEPS.

The change is added to the list, so that a job that is started again and again dies once at each of its commit steps.
"""

import os
import re
import signal
import sys

FOLDER, STEPS = os.environ["FOLDER"], os.environ["STEPS"]
RANDOM = r"[0-9a-f]{12,}|(?<=/\.incomplete-)[a-z0-9_]{8}(?=/|$)"
CHANGES = {"os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.truncate": 0, "os.rename": 1, "os.link": 1}
"""Audit events of changes, and which argument is the path."""


def _path(event: str, arguments: tuple) -> str | None:
    if event == "open":
        return arguments[0] if arguments[2] & (os.O_WRONLY | os.O_RDWR) else None
    return arguments[CHANGES[event]] if event in CHANGES else None


def _die_at_new_step(event: str, arguments: tuple) -> None:
    path = _path(event, arguments)
    if path is None or isinstance(path, int) or not os.fsdecode(path).startswith(f"{FOLDER}/"):
        return
    # Random parts of names are not steps of their own.
    name = re.sub(RANDOM, "*", os.fsdecode(path).removeprefix(FOLDER))
    step = f"{event} {name}\n"
    with open(STEPS, "a+") as file:  # noqa: PTH123 - pathlib is not what is tested here
        file.seek(0)
        if step not in file.readlines():
            file.write(step)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_die_at_new_step)
