"""A budget of downloads that all worker processes of a machine share, so that a server is not sent too many requests.

Each machine has its own address. The state is stored on the machine and outlives jobs: a small file with the start
times of the last day's downloads. Each download holds a lock that is released when its process exits, even if killed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.storage import fetch, filesystem
from shards.storage.errors import UsageError
from shards.storage.filesystem import BusyError

_DAY = 86_400.0
_POLL_SECONDS = 0.5
_LOCK_PATIENCE = 300.0


@dataclass(frozen=True)
class Politeness:
    """Limits of downloads from each worker's address; unlimited by default."""

    downloads_per_day: int | None = None
    """Maximum number of videos that each worker's address downloads within 24 hours."""
    downloads_at_once: int | None = None
    """Maximum number of videos that each worker's address downloads at the same time."""

    def check(self) -> None:
        """Raise `UsageError` for a limit that allows no downloads."""
        for name in ("downloads_per_day", "downloads_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least 1")


def state_folder() -> Path:
    """Return the folder of the state that all workers and jobs of this machine share, in the user's cache folder.

    The name of the machine is part of the path, because several machines may mount the cache folder.
    """
    return fetch.cache_folder() / "downloads" / socket.gethostname()


class Budget:
    """The download budget of this machine."""

    def __init__(self, politeness: Politeness):
        self.politeness = politeness
        self._folder = state_folder()
        self._started = self._folder / "started.json"

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for one of the concurrent downloads and occupy it during the block; yield `False` if the daily limit is
        reached."""
        with contextlib.ExitStack() as slot:
            if self.politeness.downloads_at_once is not None:
                self._wait_for_slot(slot, self.politeness.downloads_at_once)
            yield self._count()

    def _wait_for_slot(self, slot: contextlib.ExitStack, slots: int) -> None:
        while True:
            for number in range(slots):
                with contextlib.suppress(BusyError):
                    slot.enter_context(filesystem.exclusive(str(self._folder / f"place{number}"), patience=0))
                    return
            time.sleep(_POLL_SECONDS)

    def _count(self) -> bool:
        """Record a download that starts now and return true, unless the daily limit is reached."""
        limit = self.politeness.downloads_per_day
        if limit is None:
            return True
        with filesystem.exclusive(str(self._folder / "lock"), patience=_LOCK_PATIENCE):
            since = time.time() - _DAY
            started = json.loads(self._started.read_text()) if self._started.exists() else []
            started = [moment for moment in started if moment > since]
            if len(started) >= limit:
                return False
            filesystem.write_bytes(str(self._started), json.dumps([*started, round(time.time(), 3)]).encode())
        return True


class Pace:
    """The mean duration of one worker's downloads, with which a stopped worker keeps pace with the others."""

    def __init__(self, patience: float = 3600.0):
        self._patience = patience
        self._seconds, self._downloads = 0.0, 0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Count a download with the duration of the block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - start
            self._downloads += 1

    def wait(self) -> None:
        """Wait for the mean duration of a download; at most `patience` seconds in all, as an idle machine costs too."""
        seconds = min(self._seconds / max(self._downloads, 1), self._patience)
        self._patience -= seconds
        time.sleep(seconds)
