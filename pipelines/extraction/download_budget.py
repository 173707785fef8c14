"""One budget of downloads for all worker processes of a machine, so that a server gets as many requests as agreed.

A machine has its own address. The state is on the machine and outlives jobs: a small file with the times at which the
downloads of the last day started. Each download holds a lock that ends with its process, so a killed worker keeps none.
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
_LOOK_SECONDS = 0.5
_LOCK_PATIENCE = 300.0


@dataclass(frozen=True)
class Politeness:
    """How much each worker's address downloads; no limit by default."""

    downloads_per_day: int | None = None
    """Maximum number of videos that each worker's address downloads within 24 hours."""
    downloads_at_once: int | None = None
    """Maximum number of videos that each worker's address downloads at the same time."""

    def check(self) -> None:
        """Raises `UsageError` for a limit that lets nothing through."""
        for name in ("downloads_per_day", "downloads_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least 1")


def state_folder() -> Path:
    """Where this machine keeps what all its workers and jobs share, in the cache folder of the user.

    The name of the machine is part of it, for a cache folder that several machines mount.
    """
    return fetch.cache_folder() / "downloads" / socket.gethostname()


class Budget:
    """The budget of this machine."""

    def __init__(self, politeness: Politeness):
        self.politeness = politeness
        self._folder = state_folder()
        self._started = self._folder / "started.json"

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for a place and keep it for the duration of the block; false where the day's downloads are used up."""
        with contextlib.ExitStack() as place:
            if self.politeness.downloads_at_once is not None:
                self._wait_for_place(place, self.politeness.downloads_at_once)
            yield self._count()

    def _wait_for_place(self, place: contextlib.ExitStack, places: int) -> None:
        while True:
            for number in range(places):
                with contextlib.suppress(BusyError):
                    place.enter_context(filesystem.exclusive(str(self._folder / f"place{number}"), patience=0))
                    return
            time.sleep(_LOOK_SECONDS)

    def _count(self) -> bool:
        """Record a download that starts now, if the day's limit allows it."""
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
    """How long the downloads of one worker took, for a worker that may not go on while others do."""

    def __init__(self, patience: float = 3600.0):
        self._patience = patience
        self._seconds, self._downloads = 0.0, 0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Count a download that takes as long as the block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - start
            self._downloads += 1

    def wait(self) -> None:
        """Wait as long as a download took on average; at most `patience` in all, as a waiting machine costs."""
        seconds = min(self._seconds / max(self._downloads, 1), self._patience)
        self._patience -= seconds
        time.sleep(seconds)
