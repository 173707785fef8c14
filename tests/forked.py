"""Commands in processes of their own without the price of imports.

`Commands` starts one process that imports what commands import, and forks it once per command. A fork is a process like
any other: it has its own arguments, environment and output, takes signals, and can be killed. What `python -m` itself
does (parsing before imports, exit codes) is checked by tests that start interpreters.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

ROOT = Path(__file__).parent.parent
PRELOADED = {
    "pipelines": (
        *("pipelines.preprocessing.job", "pipelines.questions.job"),
        *("pipelines.maintenance.refiltering", "pipelines.preprocessing.status_report"),
    ),
    "shards": ("shards.__main__", "shards.inspection.verify", "shards.inspection.report"),
    "tests": ("apache_beam", "pipelines.preprocessing.job"),
    "train": ("tensorflow", "jax", "train.pretraining", "train.finetuning", "train.evaluation"),
}
"""What is imported before the first command of a package is forked; none of it starts a thread."""

_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Ran:
    """How a command ended: its exit status (minus the signal that ended it), and what it printed."""

    status: int
    out: str
    err: str


class Job:
    """A command that runs."""

    def __init__(self, pid: int, folder: Path):
        self.pid, self._folder = pid, folder
        self.process = psutil.Process(pid)

    def poll(self) -> int | None:
        """The exit status, or `None` while it runs."""
        with contextlib.suppress(FileNotFoundError):
            return os.waitstatus_to_exitcode(int((self._folder / "status").read_text()))
        return None

    def wait(self, timeout: float = 200) -> Ran:
        """Wait until it ends. Raises `TimeoutError`, after ending it with all it started."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                for member in self.family():
                    member.kill()
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"still running after {timeout} s: {self.read('err')}")
            time.sleep(0.02)
        return Ran(status, self.read("out"), self.read("err"))

    def wait_until(self, condition: Callable[[], object], timeout: float = 100) -> None:
        """Wait until something is the case. Raises `AssertionError` if the command ends before, or it never is."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.poll() is None, self.read("err")
            assert time.monotonic() < deadline, self.read("err")
            time.sleep(0.02)

    def read(self, stream: str) -> str:
        """What it has printed to `out` or `err` so far."""
        # A fork that has not started yet has no files.
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / stream).read_text()
        return ""

    def send_signal(self, number: int) -> None:
        """Send a signal; a command that has ended takes none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it as `kill -9` does, and wait until it and all it started are gone."""
        family = self.family()
        self.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=40)
        assert not alive, [member.cmdline() for member in alive]
        self.wait(10)

    def pause(self) -> None:
        """Stop it until it gets SIGCONT."""
        self.send_signal(signal.SIGSTOP)
        while self.process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)

    def family(self) -> list[psutil.Process]:
        """The processes it started and theirs."""
        try:
            return self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []


class Commands:
    """Starts commands of the project, such as `pipelines.preprocess`, each in a process of its own."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="commands-")
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=ROOT
        )
        theirs.close()

    def start(
        self, module: str, *arguments: object, env: dict[str, str] | None = None, before: Path | None = None
    ) -> Job:
        """Start `python -m module arguments` as a fork; `before` is a program that it runs first."""
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        request = {
            "module": module,
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(os.environ) | {"COLUMNS": "200"} | (env or {}),
            "before": str(before) if before else None,
            "folder": str(folder),
        }
        self._requests.send(json.dumps(request).encode())
        return Job(int(self._requests.recv(_MESSAGE_BYTES)), folder)

    def __call__(self, module: str, *arguments: object, timeout: float = 200, **options: object) -> Ran:
        """Run a command to its end."""
        return self.start(module, *arguments, **options).wait(timeout)

    def preprocess(self, *arguments: object, **options: object) -> Ran:
        """Run the main job to its end."""
        return self("pipelines.preprocess", *arguments, **options)

    def close(self) -> None:
        """End the server; commands that still run are not waited for."""
        self._requests.close()
        self._server.wait(10)
        self._folder.cleanup()


def _serve(requests: socket.socket) -> None:
    """Fork a command for each request; an ended one's status is written into its folder."""
    folders: dict[int, Path] = {}

    def reap(number: int, frame: object) -> None:
        for pid, folder in list(folders.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del folders[pid]
                (folder / "status-").write_text(str(status))
                (folder / "status-").rename(folder / "status")

    signal.signal(signal.SIGCHLD, reap)
    while message := requests.recv(_MESSAGE_BYTES):
        request = json.loads(message)
        for module in PRELOADED[request["module"].partition(".")[0]]:
            importlib.import_module(module)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        command = os.fork()
        if command == 0:
            requests.close()
            _run(request)
        folders[command] = Path(request["folder"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        requests.send(str(command).encode())


def _run(request: dict) -> NoReturn:
    """Be the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # As on a terminal: the tests may have been started in the background, where an interrupt is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.setsid()
    for descriptor, name in ((0, os.devnull), (1, "out"), (2, "err")):
        file = os.open(Path(request["folder"]) / name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if request["before"]:
        runpy.run_path(request["before"])
    sys.argv = [request["module"], *request["arguments"]]
    # As in a new interpreter, the module of the command is loaded as __main__ alone.
    sys.modules.pop(request["module"], None)
    # What this raises ends the process as it ends an interpreter: it is printed, and handlers of the exit run.
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _serve(socket.socket(fileno=int(sys.argv[1])))
