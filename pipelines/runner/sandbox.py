"""Run a module in a sandboxed subprocess with limits of time, memory and file size.

`Child` is the parent's end, `serve` the end of the module that the child runs. The child exits with its parent, even if
the parent is killed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from pipelines.runner.limits import Limits
from shards.storage import python_process
from shards.storage.errors import StorageError, UserError

DECODER_PREFIX = "reservoir-decoder-"
"""The prefix of the names of decoders' temporary folders."""

_PIECE_BYTES = 1 << 18
_ERROR_BYTES = 2000
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "2",
}
"""One thread per child: parallelism comes from the workers, and more threads could change the last bit of a sum."""

SMALL_HEAP = {"MALLOC_MMAP_THRESHOLD_": "262144"}
"""Environment of a child that decodes many images at once: freed images are returned to the system immediately instead
of fragmenting the heap, at the cost of page faults."""

_SCRATCH_MB = 100
"""Disk space that a decoder needs in the temporary folder: 70 MB for the language model, and some for odd media."""

_FILE_BYTES = 4 << 30
"""The size limit of temporary files, also of programs that a decoder starts: a day of audio."""


class Child:
    """A sandboxed subprocess that runs a module which calls `serve`, connected by pipes."""

    def __init__(self, module: str, limits: Limits, environment: Mapping[str, str] = MappingProxyType({})):
        # Nothing is written to this pipe: the child's read returns when this process, which holds the other end, exits.
        child_end, self._parent_pipe = os.pipe()
        self._scratch = tempfile.TemporaryDirectory(prefix=DECODER_PREFIX)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.process = subprocess.Popen(
            python_process.command(module, child_end, limits.memory_bytes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[child_end],
            start_new_session=True,
            env={
                **os.environ,
                **_ENVIRONMENT,
                **python_process.environment(),
                **environment,
                "TMPDIR": self._scratch.name,
            },
        )
        os.close(child_end)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._responses = self.process.stdin, self.process.stdout

    def request(self, message: object, seconds: float) -> Any:
        """Send a request and return the response. Raises `TimeoutError`, or `EOFError` if the child is gone."""
        deadline = time.monotonic() + seconds
        try:
            send(self._requests, message)
        except BrokenPipeError:
            raise EOFError from None
        try:
            return pickle.load(_Response(self._responses.fileno(), deadline))
        except pickle.UnpicklingError:
            raise EOFError from None

    def exit_description(self) -> str:
        """Return how the child ended: its signal or exit status, and the last line of its standard error."""
        status = self.process.wait(timeout=10)
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - _ERROR_BYTES, 0))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the decoder ended with {how}" + (f": {lines[-1][:300]}" if lines else "")

    def kill(self) -> None:
        """Kill the child and all processes it started, and remove its temporary folder."""
        with contextlib.suppress(ProcessLookupError):
            # Not after it was waited for: its id could belong to another process by then.
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._parent_pipe)
        self._errors.close()
        self._scratch.cleanup()
        self._requests.close()
        self._responses.close()


class _Response:
    """The output of a child as a file that `pickle` reads in pieces, so that hours of video are in memory only once.

    Raises `TimeoutError` after the deadline, and `EOFError` if the child is gone.
    """

    def __init__(self, descriptor: int, deadline: float):
        self.descriptor, self.deadline = descriptor, deadline

    def read(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            ready, _, _ = select.select([self.descriptor], [], [], max(self.deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            piece = os.read(self.descriptor, min(count - done, _PIECE_BYTES))
            if not piece:
                raise EOFError
            view[done : done + len(piece)] = piece
            done += len(piece)
        return bytes(data)

    def readline(self) -> bytes:
        """Raise `EOFError`: the pickle protocol in use has no lines, so the child wrote something else."""
        raise EOFError


def send(pipe: IO[bytes], message: object) -> None:
    """Write a message to a pipe."""
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def serve(respond: Callable[[Any, int], object], parent_pipe: int, memory_bytes: int) -> None:
    """Respond to the requests on standard input until it is closed, with limited memory; called by the child.

    `respond` is called with a request and `memory_bytes`. A `UserError` that it raises is sent as the response.
    """
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not be mixed with the responses
    threading.Thread(target=_exit_with_parent, args=(parent_pipe,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    requests = sys.stdin.buffer
    assert isinstance(requests, io.BufferedReader)
    while requests.peek(1):
        request = pickle.load(requests)
        try:
            response = respond(request, memory_bytes)
        except UserError as error:
            # The cause is not this item, and the next one would raise it too.
            response = error
        send(responses, response)
    _remove_own_folder()


def disk_full(error: Exception, name: str) -> StorageError | None:
    """Return the error to raise if an exception means that the temporary folder is full, else `None`."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(_no_space(name)) if full else None


def _no_space(video_id: str) -> str:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    return (
        f"cannot decode {video_id!r}: no space left in the temporary folder {folder!r}, where each worker needs"
        f" {_SCRATCH_MB} MB and {free / 1e6:.1f} MB are free; free some space, or set TMPDIR to another folder"
    )


def _remove_own_folder() -> None:
    """Remove the temporary folder that the parent created for this process, which a killed parent cannot do."""
    folder = os.environ.get("TMPDIR", "")
    # Never remove any other folder.
    if Path(folder).name.startswith(DECODER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def _exit_with_parent(parent_pipe: int) -> None:
    os.read(parent_pipe, 1)
    _remove_own_folder()
    os.killpg(0, signal.SIGKILL)
