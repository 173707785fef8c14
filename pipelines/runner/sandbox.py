"""A child process that decodes instead of its parent, with limits of time, memory and file size.

Both ends are here: `Child` for the parent, `serve` for the module that the child runs. The child dies with its parent,
however the parent ends.
"""

from __future__ import annotations

import contextlib
import errno
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
from typing import Any, BinaryIO

from pipelines.runner.limits import Limits
from shards.storage import python_process
from shards.storage.errors import StorageError, UserError

DECODER_PREFIX = "reservoir-decoder-"
"""How the temporary folders of decoders are named."""

_PIECE_BYTES = 1 << 18
_ERROR_BYTES = 2000
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "2",
}
"""Parallelism comes from the workers; more threads would only cost time, and could change the last bit of a sum."""

SMALL_HEAP = {"MALLOC_MMAP_THRESHOLD_": "262144"}
"""Environment of a child that decodes many pictures at once: they are given back to the system as soon as they are
freed instead of leaving holes in the heap, at the price of page faults."""

_SCRATCH_MB = 100
"""What a decoder unpacks in the temporary folder: 70 MB for the model of languages, and some for odd media."""

_FILE_BYTES = 4 << 30
"""The largest temporary file, also of a program that a decoder starts: a day of sound."""


class Child:
    """A process that runs a module which calls `serve`, addressed through pipes."""

    def __init__(self, module: str, limits: Limits, environment: Mapping[str, str] = MappingProxyType({})):
        # The child holds the reading end of a pipe that nobody writes to: its end is the end of this process.
        self._lifeline, lifeline = os.pipe()[::-1]
        self._scratch = tempfile.TemporaryDirectory(prefix=DECODER_PREFIX)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.process = subprocess.Popen(
            python_process.command(module, lifeline, limits.memory_bytes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[lifeline],
            start_new_session=True,
            env=os.environ | _ENVIRONMENT | python_process.environment() | environment | {"TMPDIR": self._scratch.name},
        )
        os.close(lifeline)

    def ask(self, request: object, seconds: float) -> Any:
        """The answer to a request. Raises `TimeoutError`, or `EOFError` when the child is gone."""
        deadline = time.monotonic() + seconds
        try:
            send(self.process.stdin, request)
        except BrokenPipeError:
            raise EOFError from None
        try:
            return pickle.load(_Answer(self.process.stdout.fileno(), deadline))
        except pickle.UnpicklingError:
            raise EOFError from None

    def last_words(self) -> str:
        """How the child ended: its signal or exit status, and the last line it wrote."""
        status = self.process.wait(timeout=10)
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(size - _ERROR_BYTES, 0))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the decoder ended with {how}" + (f": {lines[-1][:300]}" if lines else "")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            # Not after it was waited for: its id could be another process' by now.
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._lifeline)
        self._errors.close()
        self._scratch.cleanup()
        self.process.stdin.close()
        self.process.stdout.close()


class _Answer:
    """What a child writes, for `pickle` to read piece by piece: hours of video are never held twice.

    Raises `TimeoutError` after the deadline, and `EOFError` when the child is gone.
    """

    def __init__(self, descriptor: int, deadline: float):
        self.descriptor, self.deadline = descriptor, deadline

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
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
        """A line, which no message of the protocol in use holds."""
        raise EOFError


def send(pipe: BinaryIO, message: object) -> None:
    """Write a message."""
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def serve(answer: Callable[[Any, int], object], lifeline: int, memory_bytes: int) -> None:
    """In the child: answer requests on standard input until it ends, using at most so much memory.

    `answer` takes a request and `memory_bytes`. A `UserError` that it raises is sent as the answer.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    while sys.stdin.buffer.peek(1):
        request = pickle.load(sys.stdin.buffer)
        try:
            reply = answer(request, memory_bytes)
        except UserError as error:
            # Not this item's fault, and the next one would meet the same.
            reply = error
        send(answers, reply)
    _remove_own_folder()


def disk_full(error: Exception, name: str) -> StorageError | None:
    """In the child: the error to raise if an exception says that the temporary folder is full, else `None`."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(_no_space(name)) if full else None


def _no_space(video_id: str) -> str:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    return (
        f"cannot decode {video_id!r}: no space left in the temporary folder {folder!r}, where each worker wants"
        f" {_SCRATCH_MB} MB and {free / 1e6:.1f} MB are free; make room, or set TMPDIR to another folder"
    )


def _remove_own_folder() -> None:
    """Remove the temporary folder that was made for this process, as a worker that was killed cannot."""
    folder = os.environ.get("TMPDIR", "")
    # Never any other folder.
    if Path(folder).name.startswith(DECODER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    _remove_own_folder()
    os.killpg(0, signal.SIGKILL)
