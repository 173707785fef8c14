"""One budget of downloads for everybody who downloads from one address, so that a server is asked as often as agreed.

The state is in the ledger folder of the data, one small file an address: when the downloads of the last day began. Who
downloads holds a place, a lock that ends with its holder, so a killed worker takes none with it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from shards import filesystem, ledger
from shards.errors import UsageError
from shards.filesystem import BusyError

_FOLDER = "downloads"
_DAY = 86_400.0
_LOOK_SECONDS = 0.5
_LOCK_PATIENCE = 300.0


@dataclass(frozen=True)
class Politeness:
    """How much is downloaded from one address; no limit by default."""

    downloads_per_day: int | None = None
    """Videos that are asked for within 24 hours from one address."""
    downloads_at_once: int | None = None
    """Videos that are downloaded at the same time from one address."""
    egress: str | None = None
    """A name for the address that downloads leave from, for machines that share one; each has its own by default."""

    def check(self) -> None:
        """Raises `UsageError` for a limit that lets nothing through."""
        for name in ("downloads_per_day", "downloads_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least 1")


class Budget:
    """The budget of a data folder for the address of this machine."""

    def __init__(self, out: str, politeness: Politeness):
        self.politeness = politeness
        self.folder = filesystem.join(out, ledger.FOLDER, _FOLDER)
        self._name = filesystem.join(self.folder, quote(politeness.egress or socket.gethostname(), safe=""))

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for a place and hold it for the duration of the block; false where the day's downloads are used up."""
        with contextlib.ExitStack() as place:
            if self.politeness.downloads_at_once is not None:
                self._wait_for_place(place, self.politeness.downloads_at_once)
            yield self._count()

    def seconds_left(self) -> float:
        """How long until some address may go on, 0 if one may now; looks at every address of the data folder."""
        limit = self.politeness.downloads_per_day
        paths = filesystem.list_files(self.folder, ".json")
        if limit is None or not paths:
            return 0.0
        return min(_seconds_left(_begun(path), limit) for path in paths)

    def _wait_for_place(self, place: contextlib.ExitStack, places: int) -> None:
        while True:
            for number in range(places):
                with contextlib.suppress(BusyError):
                    place.enter_context(filesystem.exclusive(f"{self._name}.place{number}", patience=0))
                    return
            time.sleep(_LOOK_SECONDS)

    def _count(self) -> bool:
        """Note a download that begins now, if there may be one."""
        limit = self.politeness.downloads_per_day
        if limit is None:
            return True
        with filesystem.exclusive(f"{self._name}.lock", patience=_LOCK_PATIENCE):
            path = f"{self._name}.json"
            begun = _begun(path)
            if _seconds_left(begun, limit) > 0:
                return False
            filesystem.write_bytes(path, json.dumps([*begun, round(time.time(), 3)]).encode())
        return True


def _begun(path: str) -> list[float]:
    """When the downloads of the last day began."""
    since = time.time() - _DAY
    held = json.loads(filesystem.read_bytes(path)) if filesystem.exists(path) else []
    return [moment for moment in held if moment > since]


def _seconds_left(begun: list[float], limit: int) -> float:
    if len(begun) < limit:
        return 0.0
    return sorted(begun)[-limit] + _DAY - time.time()
