"""A circuit breaker that stops the downloads of a machine for the rest of a run when the server rejects requests.

The breaker is a file on the machine, shared by its worker processes; other machines have other addresses and continue.
It opens at the first bot check, or after several consecutive failures of one worker that are caused by the network, the
platform or this address rather than by the videos.
"""

from __future__ import annotations

import time
from pathlib import Path

from pipelines.extraction.download_budget import state_folder
from pipelines.extraction.untried import Reason
from shards.outcomes import Outcome
from shards.storage import filesystem

_CONSECUTIVE_FAILURES = {
    Outcome.BOT_CHECK: 1,
    Outcome.RATE_LIMITED: 3,
    Outcome.CAPTIONS_REFUSED: 3,
    Outcome.NO_FORMATS_OFFERED: 3,
    Outcome.FORBIDDEN: 10,
    Outcome.NETWORK: 10,
    Outcome.SERVER: 10,
}
"""The number of consecutive failures at which the breaker opens, by the outcome of the last one."""

_RETENTION_SECONDS = 30 * 86_400.0


class Breaker:
    """The breaker of this machine for one run, used by one worker; `run` is a token unique to the run."""

    def __init__(self, run: str):
        self._folder = state_folder() / "stopped"
        self._path = self._folder / run
        self._failures = 0

    def note(self, outcome: Outcome | None) -> None:
        """Count the outcome of a download, `None` for a successful one; may open the breaker."""
        limit = _CONSECUTIVE_FAILURES.get(outcome) if outcome else None
        self._failures = 0 if limit is None else self._failures + 1
        if outcome and limit is not None and self._failures >= limit:
            _remove_old(self._folder)
            filesystem.write_bytes(str(self._path), outcome.value.encode())

    def reason(self) -> Reason | None:
        """Return why the breaker is open, `None` if it is closed."""
        if not self._path.exists():
            return None
        return Reason(self._path.read_text())


def _remove_old(folder: Path) -> None:
    """Remove the files of runs that ended long ago."""
    for path in folder.glob("*"):
        if path.stat().st_mtime < time.time() - _RETENTION_SECONDS:
            path.unlink(missing_ok=True)
