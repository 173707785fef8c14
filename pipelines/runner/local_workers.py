"""Local worker processes, forked from a server that has imported everything they need.

Beam starts a local worker as a new interpreter, which takes seconds to import Beam. Here a worker is a fork: a command
forks the server before it starts a thread or acquires a lock, and the server forks a worker whenever the runner
requests one. In other processes (a notebook, a test), which cannot be forked safely, the server is a new interpreter.
Server and workers exit when the process of the job exits, even if it is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import psutil
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import Environment, python_sdk_capabilities
from google.protobuf import json_format, text_format

from shards.storage import python_process

PROCESS_NAME = "beam-worker"
"""The name of a worker in process lists."""

STARTED: list[psutil.Process] = []
"""All workers started for this process, in order."""

_URN = "reservoir:env:forked_worker:v1"
_REQUEST_BYTES = 1 << 20
_STOP_SECONDS = 30.0


class ForkedWorkers(Environment):
    """A Beam environment whose workers are forks that append their output to the file `log`."""

    def __init__(self, log: str):
        super().__init__(capabilities=python_sdk_capabilities())
        self.log = log

    def to_runner_api_parameter(self, context: object) -> tuple[str, bytes]:
        """Return the URN of this environment and its payload."""
        return _URN, self.log.encode()


@WorkerHandler.register_environment(_URN, bytes)
class ForkedWorkerHandler(GrpcWorkerHandler):
    """The handler that starts and stops one worker for Beam's local runner."""

    def __init__(self, payload: bytes, state: Any, provision_info: Any, grpc_server: Any):
        super().__init__(state, provision_info, grpc_server)
        self._log = payload.decode()

    def start_worker(self) -> None:
        """Request a worker from the server; it connects to this handler."""
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        environment = {
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }
        self._process = psutil.Process(start_server(fork=False).start_worker(environment, self._log))
        STARTED.append(self._process)

    def stop_worker(self) -> None:
        """Wait for the worker, which exits when its connection is closed."""
        psutil.wait_procs([self._process], timeout=_STOP_SECONDS)


class Server:
    """The process that forks workers for this one."""

    def __init__(self, fork: bool):
        self._requests, requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Nothing is written to this pipe: a read returns when this process, which holds the other end, exits.
        parent_pipe, self._parent_pipe = os.pipe()
        if not fork:
            descriptors = (requests.fileno(), parent_pipe)
            subprocess.Popen(
                python_process.command(__name__, *descriptors),
                pass_fds=descriptors,
                env=os.environ | python_process.environment(),
            )
        elif os.fork() == 0:
            self._requests.close()
            os.close(self._parent_pipe)
            _serve(requests, parent_pipe)
        requests.close()
        os.close(parent_pipe)

    def start_worker(self, environment: dict[str, str], log: str) -> int:
        """Fork a worker with these variables in its environment and return its process id.

        Raises `OSError` if the server is gone.
        """
        self._requests.send(json.dumps({"environment": environment, "log": log}).encode())
        response = self._requests.recv(_REQUEST_BYTES)
        if not response:
            raise ConnectionResetError("the process that starts workers is gone")
        return int(response)


_server: Server | None = None


def start_server(fork: bool) -> Server:
    """Return the server of this process, starting it if necessary.

    A fork shares the open files of this process: it would never release a lock that is acquired before.
    """
    global _server
    if _server is None:
        _server = Server(fork)
    return _server


def _serve(requests: socket.socket, parent_pipe: int) -> NoReturn:
    """Fork a worker for each request until the job ends."""
    # Ctrl-C interrupts the job, whose end ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _reap)
    with contextlib.suppress(ConnectionResetError):
        while message := requests.recv(_REQUEST_BYTES):
            request = json.loads(message)
            worker = os.fork()
            if worker == 0:
                requests.close()
                _work(request["environment"], request["log"], parent_pipe)
            requests.send(str(worker).encode())
    os._exit(0)


def _reap(number: int, frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _work(environment: dict[str, str], log: str, parent_pipe: int) -> NoReturn:
    """Run a worker until the runner closes the connection or the job ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(PROCESS_NAME)
    with contextlib.suppress(OSError), Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_exit_with_job, args=(parent_pipe,), daemon=True).start()
    os.environ |= environment
    status = 1
    try:
        sdk_worker_main.main([])
        status = 0
    finally:
        os._exit(status)


def _exit_with_job(parent_pipe: int) -> None:
    os.read(parent_pipe, 1)
    os._exit(1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
