"""Batches computed by worker processes, independent of the GIL of this process.

Workers are new interpreters that import only `shards`. Each receives the description of the stream once and then pieces
of batches, which it computes in shared memory. A worker that dies is replaced and its pieces are computed again; they
depend on their positions alone, so the result is the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import astuple
from multiprocessing.connection import Pipe

from shards.reading.batches import BatchBuilder, ThreadBatches, batch_bytes
from shards.reading.config import StreamOptions
from shards.reading.examples import ExampleInfo, Examples, ReaderError
from shards.reading.shared_batches import SharedBatches
from shards.reading.worker import Piece
from shards.records.parser import Arrays, RecordParser
from shards.storage import python_process
from shards.storage.errors import UsageError

_PIECES_AHEAD = 2
"""Pieces assigned to a worker at a time: one in progress and one queued, so that it never waits for this process."""

_MAX_PIECE = 8
_ATTEMPTS = 3
"""Maximum number of workers that may die on one piece."""

_MIN_CORES = 4
_MAX_WORKERS = 16
_EXIT_SECONDS = 5.0

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""A worker uses one thread; a thread pool per worker would only use memory."""

_logger = logging.getLogger(__name__)


def open_batches(examples: Examples, rows: int, options: StreamOptions) -> BatchBuilder:
    """Start the processes or threads of the options, for batches of up to `rows` examples.

    Raises `UsageError` if a parser cannot be sent to worker processes.
    """
    workers = worker_count(options.workers, examples.parsers)
    return WorkerBatches(examples, rows, workers) if workers else ThreadBatches(examples, options.threads)


def worker_count(requested: int | None, parsers: Sequence[RecordParser]) -> int:
    """Return the number of worker processes; default: all cores but one, at most 16, on a host with 4 cores or more.

    The default is 0 (threads) for parsers of other packages, which may not be importable in a new process.
    """
    if requested is not None:
        return requested
    cores = len(os.sched_getaffinity(0))
    is_own = all(type(parser).__module__.startswith("shards.") for parser in parsers)
    return min(cores - 1, _MAX_WORKERS) if is_own and cores >= _MIN_CORES else 0


class WorkerBatches:
    """Batches of up to `rows` examples computed by worker processes, each supervised by a thread."""

    def __init__(self, examples: Examples, rows: int, workers: int):
        self.parallel = max(2, 1 - (-_PIECES_AHEAD * workers // rows))
        self._piece = min(max(rows // (_PIECES_AHEAD * workers), 1), _MAX_PIECE)
        self._specs = [parser.spec() for parser in examples.parsers]
        self._description = _file_of(examples)
        self._memory = SharedBatches(max(batch_bytes(spec, rows) for spec in self._specs), kept=self.parallel + 2)
        self._lock, self._closed = threading.Lock(), False
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        supervisors = [_Supervisor(self._queue, self._memory, self._description) for _ in range(workers)]
        self._threads = [threading.Thread(target=supervisor.run, daemon=True) for supervisor in supervisors]
        for thread in self._threads:
            thread.start()

    def build(self, parser: int, rows: int, position: int, count: int) -> tuple[Arrays, Sequence[ExampleInfo]]:
        """Implement `BatchBuilder.build`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the reader is closed")
            slot = self._memory.acquire()
            tasks = [
                _Task(Piece(slot.number, parser, rows, i, min(self._piece, count - i), position + i))
                for i in range(0, count, self._piece)
            ]
            for task in tasks:
                self._queue.put(task)
        try:
            # Wait for all tasks, even if one fails: the slot must not be reused while a worker writes to it.
            wait([task.result for task in tasks])
            infos = [info for task in tasks for info in task.result.result()]
            return self._memory.arrays(slot, self._specs[parser], rows), infos
        finally:
            # The traceback of an error refers to this frame, which must not keep the memory or the error alive.
            del slot, tasks

    def close(self) -> None:
        """Stop the workers after their assigned pieces."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._memory.close()
        os.close(self._description)


class _Task:
    """A piece, the future of its result, and the number of workers that died on it."""

    def __init__(self, piece: Piece):
        self.piece = piece
        self.result: Future[list[ExampleInfo]] = Future()
        self.deaths = 0

    def finish(self, reply: list[ExampleInfo] | Exception | str) -> None:
        """Set the result or the exception; a string is the traceback of an exception that cannot be pickled."""
        if isinstance(reply, str):
            reply = RuntimeError(f"a worker process of the reader failed:\n{reply}")
        if isinstance(reply, Exception):
            self.result.set_exception(reply)
        else:
            self.result.set_result(reply)


class _Supervisor:
    """Assigns tasks from a queue to one worker process, started with the first task, and replaces it if it dies."""

    def __init__(self, tasks: queue.SimpleQueue[_Task | None], memory: SharedBatches, description: int):
        self._queue, self._memory, self._description = tasks, memory, description
        self._worker: _Worker | None = None
        self._assigned: deque[_Task] = deque()
        self._ending = False

    def run(self) -> None:
        """Run until the queue ends with `None`."""
        while self._assign():
            try:
                self._assigned[0].finish(self._receive())
                self._assigned.popleft()
            except (EOFError, OSError) as error:
                self._record_death(self._stop() or f"{type(error).__name__} {error}")
            except Exception as error:  # noqa: BLE001 - any error must end the task, which `build` waits for
                self._assigned.popleft().finish(error)
                self._stop()
        self._stop()

    def _assign(self) -> bool:
        """Send tasks to the worker up to its limit; return whether any task is assigned."""
        while not self._ending and len(self._assigned) < _PIECES_AHEAD:
            try:
                task = self._queue.get(block=not self._assigned)
            except queue.Empty:
                break
            if task is None:
                self._ending = True
                break
            self._assigned.append(task)
            if self._worker:
                # A dead worker is detected when its reply is missing.
                with contextlib.suppress(OSError):
                    self._worker.send(task.piece)
        return bool(self._assigned)

    def _receive(self) -> list[ExampleInfo] | Exception | str:
        if self._worker is None:
            self._worker = _Worker(self._memory, self._description)
            for task in self._assigned:
                self._worker.send(task.piece)
        return self._worker.receive()

    def _stop(self) -> str:
        """Stop the worker, if any, and return its exit status as text."""
        worker, self._worker = self._worker, None
        return worker.stop() if worker else ""

    def _record_death(self, status: str) -> None:
        """Count the death of a worker against its current task, and fail the task after too many."""
        task = self._assigned[0]
        task.deaths += 1
        first, last = task.piece.position, task.piece.position + task.piece.count - 1
        if task.deaths < _ATTEMPTS:
            _logger.warning(
                "a worker process of the reader ended with %s; another one computes examples %d to %d",
                status,
                first,
                last,
            )
            return
        self._assigned.popleft()
        task.finish(
            ReaderError(
                f"{task.deaths} worker processes of the reader died on examples {first} to {last}, the last with"
                f" {status}; give this host more memory, or set the workers to 0 to see the failure in this process"
            )
        )


class _Worker:
    """A process running `python -m shards.reading.worker`. Its methods raise `EOFError` or `OSError` if it has died."""

    def __init__(self, memory: SharedBatches, description: int):
        self._channel, remote = Pipe()
        files = (remote.fileno(), memory.file, description)
        self._process = subprocess.Popen(
            python_process.command("shards.reading.worker", *files, memory.slot_bytes, os.getpid()),
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            env=os.environ | _ENVIRONMENT | python_process.environment(),
        )
        remote.close()
        self._started = False

    def send(self, piece: Piece) -> None:
        """Send a piece; replies arrive in the order of the pieces."""
        self._channel.send_bytes(pickle.dumps(astuple(piece)))

    def receive(self) -> list[ExampleInfo] | Exception | str:
        """Return the reply to the oldest pending piece. Raises `UsageError` if the worker could not start."""
        if not self._started:
            problem = pickle.loads(self._channel.recv_bytes())
            if problem is not None:
                raise UsageError(
                    f"a worker process of the reader could not load the parser ({problem}); define it in a module that"
                    " can be imported, or set the workers to 0"
                )
            self._started = True
        return pickle.loads(self._channel.recv_bytes())

    def stop(self) -> str:
        """Close the channel, which ends the process, and return its exit status as text."""
        self._channel.close()
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _file_of(examples: Examples) -> int:
    """Return the descriptor of a memory file with the pickled examples.

    Raises `UsageError` if they cannot be pickled.
    """
    try:
        content = pickle.dumps(examples)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(f"the parser cannot be sent to worker processes ({error}); set the workers to 0") from None
    file = os.memfd_create("reader-examples")
    with os.fdopen(os.dup(file), "wb") as stream:
        stream.write(content)
    return file
