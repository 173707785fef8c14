"""Decode in a sandboxed subprocess with limits of time and memory.

A worker keeps one child and hands it video after video. A video that hangs, crashes or eats memory takes the child
with it and nothing else: its outcome says so and the next video gets a new child. The child dies with its worker,
however the worker ends.
"""

from __future__ import annotations

import contextlib
import enum
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import BinaryIO

from ingest.config import VideoConfig
from ingest.outcomes import Outcome
from ingest.raw import RawVideo
from ingest.result import Result
from pipelines.limits import Limits
from shards.filesystem import StorageError
from shards.segments import VideoText

DECODER_PREFIX = "reservoir-decoder-"
"""How the temporary folders of decoders are named."""

_PIECE_BYTES = 1 << 18
_ERROR_BYTES = 2000
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "262144",
}
"""Parallelism comes from videos; more threads would only cost time, and could change the last bit of a sum. Pictures
are given back to the system as soon as they are freed instead of leaving holes in the heap."""


class Work(enum.Enum):
    """What a child is to do with a raw video: everything, look at its text alone, or open its media."""

    PROCESS = "process"
    SCREEN = "screen"
    CHECK = "check"


@dataclass(frozen=True)
class Request:
    """A raw video, what to do with it, and how."""

    work: Work
    raw: RawVideo
    config: VideoConfig


@dataclass(frozen=True)
class Extracted:
    """A video's result and the seconds of CPU that it cost."""

    result: Result
    cpu_seconds: float


class Extractor:
    """One child process, started when first needed and again after each that was lost.

    Captions, metadata and media come from outside, so nothing else reads them. The child's temporary files live in a
    folder of its own in the temporary folder, which goes with it.
    """

    def __init__(self, config: VideoConfig, limits: Limits):
        self.config, self.limits = config, limits
        self._child: _Child | None = None

    def __call__(self, raw: RawVideo) -> Extracted:
        """The result of a raw video; a lost child gives timed-out, crashed or out-of-memory.

        Raises `StorageError` when there is no room for its temporary files.
        """
        extracted = self._answer(Request(Work.PROCESS, raw, self.config))
        if extracted is None:
            raise AssertionError(f"the decoder gave no result for {raw.id!r}")
        return extracted

    def screen(self, raw: RawVideo) -> Result | None:
        """The result of a raw video that is rejected by its text, before its media are fetched; `None` if it is not.

        A lost child gives a result as for `__call__`.
        """
        extracted = self._answer(Request(Work.SCREEN, raw, self.config))
        return extracted and extracted.result

    def check(self, raw: RawVideo) -> Result | None:
        """The result of a video whose downloaded media cannot be opened; `None` if they can. Otherwise as `screen`."""
        extracted = self._answer(Request(Work.CHECK, raw, self.config))
        return extracted and extracted.result

    def _answer(self, request: Request) -> Extracted | None:
        raw = request.raw
        if self._child is None:
            self._child = _Child(self.limits)
        try:
            extracted = self._child.ask(request, self.limits.seconds)
        except TimeoutError:
            return self._lost(raw, Outcome.TIMED_OUT, f"no result after {self.limits.seconds:g} s")
        except EOFError:
            return self._lost(raw, Outcome.CRASHED, self._child.last_words())
        if isinstance(extracted, StorageError):
            raise extracted
        if extracted is not None and extracted.result.outcome is Outcome.OUT_OF_MEMORY:
            self.close()
        return extracted

    def _lost(self, raw: RawVideo, outcome: Outcome, detail: str) -> Extracted:
        self.close()
        return Extracted(Result(outcome, detail, {}, VideoText(raw.id)), 0.0)

    def close(self) -> None:
        """End the child and everything it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None


class _Child:
    """A process running `python -m pipelines.decoder`, spoken to through pipes."""

    def __init__(self, limits: Limits):
        # The child holds the reading end of a pipe that nobody writes to: its end is the end of this process.
        self._lifeline, lifeline = os.pipe()[::-1]
        self._scratch = tempfile.TemporaryDirectory(prefix=DECODER_PREFIX)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.decoder", str(lifeline), str(limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[lifeline],
            start_new_session=True,
            env=os.environ | _ENVIRONMENT | {"TMPDIR": self._scratch.name},
        )
        os.close(lifeline)

    def ask(self, request: Request, seconds: float) -> Extracted | StorageError | None:
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
