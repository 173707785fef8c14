"""One process of a run on several, under a parent that ends it when another process of the run has ended.

`jax.distributed` aborts a process whose coordinator is gone from a thread of its own (SIGABRT, a page of C++ stack).
Nothing in Python prevents that: the callback that its client offers cannot be called from Python in this version. A
process may also wait in a collective that never ends. So the work is done in a forked child, before anything heavy is
imported; the parent watches the other processes (`train.distributed.peer_monitor`), prints in one sentence why the run
ended, and exits with a status that launchers restart.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from shards.storage.errors import UsageError, UserError
from train.distributed.peer_monitor import PeerMonitor, Place
from train.distributed.processes import Hosts

FAILED = 1
"""The exit status of every process of a run that has failed in one of them."""
_GRACE_SECONDS = 2.0
"""How long the work may take to end by itself after another process has ended: often it fails for the same reason."""
_NEWS_SECONDS = 1.0
"""How long a failure that may be a consequence waits for news of another process."""
_NATIVE_DELAY_SECONDS = 1.0
"""How long output of compiled code is kept back: what it prints as it aborts is replaced by a sentence."""
_TEXT_CHARACTERS = 50_000
_ABORTED_BY_JAX = b"JAX distributed service detected fatal errors"
_CONTINUE = "start all processes again: the same command continues from the newest checkpoint"


@dataclass(frozen=True)
class _Report:
    """How the work failed, by its own account."""

    status: int
    summary: str
    """One line."""
    text: str
    """What a person should read: the sentence of a `UserError`, or a traceback."""
    consequence: bool
    """Whether it may follow from the end of another process, as a collective that failed."""


def supervised(given: Hosts, work: Callable[[], int]) -> int:
    """Do the work of one process of a run and return its exit status; alone, in this very process.

    On several processes, `work` is called in a child after all have met. Whatever it raises is printed here, and
    when another process ended first, that is what is said instead.
    """
    given.check()
    if given.coordinator is None:
        return work()
    with selectors.DefaultSelector() as selector:
        monitor = PeerMonitor(selector)
        parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        native, native_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # A SIGTERM that comes before there is a handler is delivered afterwards.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        child = os.fork()
        if child == 0:
            parent_end.close()
            os.close(native)
            monitor.release()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            _work(given, work, monitor.address, child_end, native_end)
        child_end.close()
        os.close(native_end)
        return _Supervisor(child, selector, monitor, parent_end, native).run()


class _Supervisor:
    """The parent of the process that works."""

    def __init__(
        self, child: int, selector: selectors.BaseSelector, monitor: PeerMonitor, reports: socket.socket, native: int
    ):
        self._child, self._selector, self._monitor = child, selector, monitor
        self._reports, self._native = reports, native
        self._place: Place | None = None
        self._report: _Report | None = None
        self._kept: deque[tuple[float, bytes]] = deque()
        reports.setblocking(False)
        os.set_blocking(native, False)
        selector.register(reports, selectors.EVENT_READ, self._read_report)
        selector.register(native, selectors.EVENT_READ, self._read_native)

    def run(self) -> int:
        """Wait until the work ends, or end it; returns the exit status."""
        before = signal.signal(signal.SIGTERM, self._forward)
        # A terminal sends it to both, and the work decides.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        status = self._wait()
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
        if status == 0:
            self._monitor.close()
            self._relay(0.0)
            return 0
        if self._report.consequence if self._report else status == -signal.SIGABRT:
            self._turn_until(lambda: self._monitor.news, _NEWS_SECONDS)
        return self._explain(status)

    def _forward(self, number: int, frame: object) -> None:
        del frame
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, number)

    def _wait(self) -> int:
        """Return the exit status of the child, negative for a signal."""
        deadline = None
        while True:
            self._turn(0.1)
            self._relay(_NATIVE_DELAY_SECONDS)
            ended, status = os.waitpid(self._child, os.WNOHANG)
            if ended:
                while self._turn(0.0):
                    pass
                return os.waitstatus_to_exitcode(status)
            if self._monitor.news and deadline is None:
                deadline = time.monotonic() + _GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                # It may be in a collective that never ends, where it takes no other signal.
                os.kill(self._child, signal.SIGKILL)

    def _explain(self, status: int) -> int:
        """Say why the work ended and tell the others; returns the exit status."""
        name, news, report = self._name(), self._monitor.news, self._report
        if report is not None and (report.status != FAILED or news is None):
            self._relay(0.0)
            if report.text:
                sys.stderr.write(report.text)
            self._monitor.close(f"{name} failed: {report.summary}")
            return report.status
        aborted = any(_ABORTED_BY_JAX in text for _, text in self._kept)
        if news is None and aborted:
            news = "another process of the run died, or cannot be reached"
        if news is not None:
            self._monitor.close(news)
            sys.stderr.write(f"error: {news}, so {name} ends too; {_CONTINUE}\n")
            return FAILED
        self._relay(0.0)
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._monitor.close(f"{name} {how}")
        sys.stderr.write(f"error: the work of {name} {how}; {_CONTINUE}\n")
        return FAILED

    def _name(self) -> str:
        return self._place.name(self._place.process) if self._place else "this process"

    def _turn(self, timeout: float) -> bool:
        """Read what has come, or comes within so many seconds; whether there was anything."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            key.data()
        return bool(ready)

    def _turn_until(self, condition: Callable[[], object], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            self._turn(0.05)

    def _read_report(self) -> None:
        message = self._reports.recv(1 << 18)
        if not message:
            self._selector.unregister(self._reports)
            return
        fields = json.loads(message)
        if "place" in fields:
            self._place = Place(**fields["place"])
            try:
                self._monitor.connect(self._place)
            except OSError as error:
                sys.stderr.write(
                    f"{self._name()} cannot reach {self._place.host}:{self._place.port} ({error}); open the ports"
                    " between the hosts, or a lost process is noticed only after minutes\n"
                )
        else:
            self._report = _Report(**fields["report"])
            if not self._report.consequence and self._monitor.news is None:
                # Before the collectives of the others fail for it.
                self._monitor.close(f"{self._name()} failed: {self._report.summary}")

    def _read_native(self) -> None:
        data = os.read(self._native, 1 << 16)
        if data:
            self._kept.append((time.monotonic(), data))
        else:
            self._selector.unregister(self._native)

    def _relay(self, age: float) -> None:
        """Print what compiled code wrote at least so many seconds ago."""
        while self._kept and self._kept[0][0] <= time.monotonic() - age:
            os.write(2, self._kept.popleft()[1])


def _work(given: Hosts, work: Callable[[], int], address: str, reports: socket.socket, native: int) -> NoReturn:
    """Be the process that works, and end with it."""
    # Python keeps the terminal; what compiled code writes to descriptor 2 goes through the parent.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(native, 2)
    os.close(native)
    threading.Thread(target=_end_with_parent, args=(reports,), daemon=True).start()
    try:
        from train.distributed import hosts

        place = hosts.join(given, address)
        reports.send(json.dumps({"place": vars(place)}).encode())
        status = work()
        # Where one still writes the weights, the others must not wait in JAX's barrier, which has a time limit.
        hosts.wait_for_all("the run has ended")
    except UserError as error:
        status = 2 if isinstance(error, UsageError) else FAILED
        report = _Report(status, " ".join(str(error).split()), f"error: {error}\n", _may_follow(error))
    except KeyboardInterrupt:
        report = _Report(130, "it was interrupted", "", False)
    # Whatever ends the work has to be told to the other processes.
    except Exception as error:  # noqa: BLE001
        line = " ".join(traceback.format_exception_only(error)[-1].split())
        report = _Report(FAILED, line, traceback.format_exc()[-_TEXT_CHARACTERS:], _may_follow(error))
    else:
        sys.exit(status)
    with contextlib.suppress(OSError):
        reports.send(json.dumps({"report": vars(report)}).encode())
    sys.stdout.flush()
    # Without handlers of the exit: JAX's would wait for processes that wait for this one.
    os._exit(report.status)


def _may_follow(error: BaseException | None) -> bool:
    """Return whether an error was caused by XLA's runtime, as when a collective fails."""
    while error is not None:
        if type(error).__name__ == "JaxRuntimeError":
            return True
        error = error.__cause__ or error.__context__
    return False


def _end_with_parent(reports: socket.socket) -> None:
    """End at once when the parent is gone, because no other process reports how this one ends."""
    with contextlib.suppress(OSError):
        reports.recv(1)
    os._exit(FAILED)
