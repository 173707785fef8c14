"""Batches made by worker processes, whatever the interpreter of this one is busy with.

Workers are new interpreters that import `shards` alone. Each gets the description of the stream once and then pieces of
batches, which it makes in shared memory. A worker that dies is replaced and its pieces are made again; they depend on
nothing but their positions, so nobody can tell.
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
from multiprocessing.connection import Pipe

from shards.reading.batches import BatchMaker, ThreadBatches, batch_bytes
from shards.reading.config import StreamOptions
from shards.reading.examples import Examples, Made, ReaderError
from shards.reading.shared_batches import SharedBatches
from shards.reading.worker import Piece
from shards.records.parser import Arrays, RecordParser
from shards.storage import python_process
from shards.storage.errors import UsageError

_PIECES_AHEAD = 2
"""Pieces that a worker has: one is made while the next waits, so that a busy interpreter here costs no time there."""

_LARGEST_PIECE = 8
_ATTEMPTS = 3
"""Workers that may die of one piece."""

_FEWEST_CORES = 4
_MOST_WORKERS = 16
_SECONDS_TO_END = 5.0

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""A worker has one thread; a pool for every core of a large host would only take memory."""

_logger = logging.getLogger(__name__)


def open_batches(examples: Examples, rows: int, options: StreamOptions) -> BatchMaker:
    """What makes batches of up to `rows` examples, with the processes or threads of the options.

    Raises `UsageError` if a parser cannot be sent to the processes.
    """
    workers = worker_count(options.workers, examples.parsers)
    return WorkerBatches(examples, rows, workers) if workers else ThreadBatches(examples, options.threads)


def worker_count(wanted: int | None, parsers: Sequence[RecordParser]) -> int:
    """How many worker processes make examples: by default all cores but one, from 4 cores on, and at most 16.

    A parser that is not from here is made by threads by default, because nobody knows whether it can be sent.
    """
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0))
    ours = all(type(parser).__module__.startswith("shards.") for parser in parsers)
    return min(cores - 1, _MOST_WORKERS) if ours and cores >= _FEWEST_CORES else 0


class WorkerBatches:
    """Batches of up to `rows` examples made by so many worker processes, each looked after by a thread."""

    def __init__(self, examples: Examples, rows: int, workers: int):
        self.ahead = max(2, 1 - (-_PIECES_AHEAD * workers // rows))
        self._piece = min(max(rows // (_PIECES_AHEAD * workers), 1), _LARGEST_PIECE)
        self._specs = [parser.spec() for parser in examples.parsers]
        self._description = _file_of(examples)
        self._memory = SharedBatches(max(batch_bytes(spec, rows) for spec in self._specs), kept=self.ahead + 2)
        self._lock, self._closed = threading.Lock(), False
        self._pieces: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        keepers = [_Keeper(self._pieces, self._memory, self._description) for _ in range(workers)]
        self._threads = [threading.Thread(target=keeper.run, daemon=True) for keeper in keepers]
        for thread in self._threads:
            thread.start()

    def make(self, parser: int, rows: int, position: int, count: int) -> tuple[Arrays, Sequence[Made]]:
        """As in `BatchMaker`."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the batches of a closed reader are not made any more")
            slot = self._memory.take()
            works = [
                _Work(Piece(slot.number, parser, rows, i, min(self._piece, count - i), position + i))
                for i in range(0, count, self._piece)
            ]
            for work in works:
                self._pieces.put(work)
        try:
            # All of them, also where one fails: the slot must not be used again while somebody writes to it.
            wait([work.made for work in works])
            made = [example for work in works for example in work.made.result()]
            return self._memory.arrays(slot, self._specs[parser], rows), made
        finally:
            # An error keeps this frame, which must neither keep the memory nor, by its pieces, the error.
            del slot, works

    def close(self) -> None:
        """End the workers when they have made what they were given."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._pieces.put(None)
        for thread in self._threads:
            thread.join()
        self._memory.close()
        os.close(self._description)


class _Work:
    """A piece, what came of it, and how many workers it has ended."""

    def __init__(self, piece: Piece):
        self.piece = piece
        self.made: Future[list[Made]] = Future()
        self.deaths = 0

    def finish(self, answer: list[Made] | Exception | str) -> None:
        if isinstance(answer, str):
            answer = RuntimeError(f"a worker process of the reader failed:\n{answer}")
        if isinstance(answer, Exception):
            self.made.set_exception(answer)
        else:
            self.made.set_result(answer)


class _Keeper:
    """Keeps one worker busy until the pieces end, and replaces it whenever it dies. Starts it with the first piece."""

    def __init__(self, pieces: queue.SimpleQueue[_Work | None], memory: SharedBatches, description: int):
        self._pieces, self._memory, self._description = pieces, memory, description
        self._worker: _Worker | None = None
        self._given: deque[_Work] = deque()
        self._ending = False

    def run(self) -> None:
        while self._take():
            try:
                self._given[0].finish(self._answer())
                self._given.popleft()
            except (EOFError, OSError) as error:
                self._note_death(self._end() or f"{type(error).__name__} {error}")
            except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for this piece
                self._given.popleft().finish(error)
                self._end()
        self._end()

    def _take(self) -> bool:
        """Give the worker as much as it should have; false when there is nothing more to wait for."""
        while not self._ending and len(self._given) < _PIECES_AHEAD:
            try:
                work = self._pieces.get(block=not self._given)
            except queue.Empty:
                break
            if work is None:
                self._ending = True
                break
            self._given.append(work)
            if self._worker:
                # A worker that is gone is noticed where its answer is missing.
                with contextlib.suppress(OSError):
                    self._worker.give(work.piece)
        return bool(self._given)

    def _answer(self) -> list[Made] | Exception | str:
        if self._worker is None:
            self._worker = _Worker(self._memory, self._description)
            for work in self._given:
                self._worker.give(work.piece)
        return self._worker.answer()

    def _end(self) -> str:
        """End the worker if there is one; how it ended."""
        worker, self._worker = self._worker, None
        return worker.end() if worker else ""

    def _note_death(self, how: str) -> None:
        """Count a worker's death against the piece that it was making, and give that up after too many."""
        work = self._given[0]
        work.deaths += 1
        first, last = work.piece.position, work.piece.position + work.piece.count - 1
        if work.deaths < _ATTEMPTS:
            _logger.warning(
                "a worker process of the reader ended with %s; another makes examples %d to %d", how, first, last
            )
            return
        self._given.popleft()
        work.finish(
            ReaderError(
                f"examples {first} to {last} have ended {work.deaths} worker processes of the reader, the last with"
                f" {how}; give this host more memory, or set the workers to 0 to see the failure in this process"
            )
        )


class _Worker:
    """A process running `python -m shards.reading.worker`. Raises `EOFError` or `OSError` when it is gone."""

    def __init__(self, memory: SharedBatches, description: int):
        self._channel, theirs = Pipe()
        files = (theirs.fileno(), memory.file, description)
        self._process = subprocess.Popen(
            python_process.command("shards.reading.worker", *files, memory.slot_bytes, os.getpid()),
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            env=os.environ | _ENVIRONMENT | python_process.environment(),
        )
        theirs.close()
        self._started = False

    def give(self, piece: Piece) -> None:
        """Send a piece; its answer comes after those of the pieces before it."""
        self._channel.send_bytes(pickle.dumps(tuple(piece)))

    def answer(self) -> list[Made] | Exception | str:
        """What came of the oldest piece without an answer. Raises `UsageError` if the worker could not start."""
        if not self._started:
            problem = pickle.loads(self._channel.recv_bytes())
            if problem is not None:
                raise UsageError(
                    f"a worker process of the reader could not load what makes examples ({problem}); define the parser"
                    " in a module that can be imported, or set the workers to 0"
                )
            self._started = True
        return pickle.loads(self._channel.recv_bytes())

    def end(self) -> str:
        """Close the channel, which ends the process; how it ended."""
        self._channel.close()
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _file_of(examples: Examples) -> int:
    """The descriptor of a file in memory with the pickled examples. Raises `UsageError` if they cannot be pickled."""
    try:
        content = pickle.dumps(examples)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"what makes examples cannot be sent to worker processes ({error}); set the workers to 0"
        ) from None
    file = os.memfd_create("reader-examples")
    with os.fdopen(os.dup(file), "wb") as stream:
        stream.write(content)
    return file
