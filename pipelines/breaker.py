"""When a server says stop, the downloads of a machine stop for the rest of the run.

The breaker is a file on the machine, so that all its worker processes see it; other machines have other addresses, and
go on. It opens at the first bot check, or at the third rate limit in a row of one worker.
"""

from __future__ import annotations

import time
from pathlib import Path

from ingest.outcomes import Outcome
from pipelines.budget import state_folder
from pipelines.not_tried import Reason
from shards import filesystem

_LIMITED_IN_A_ROW = 3
_KEPT_SECONDS = 30 * 86_400.0


class Breaker:
    """The breaker of this machine for one run, as one worker sees it; `run` is a token that no other run has."""

    def __init__(self, run: str):
        self._folder = state_folder() / "stopped"
        self._path = self._folder / run
        self._limited = 0

    def note(self, outcome: Outcome) -> None:
        """Count how a download ended; may open the breaker."""
        self._limited = self._limited + 1 if outcome is Outcome.RATE_LIMITED else 0
        if outcome is Outcome.BOT_CHECK or self._limited >= _LIMITED_IN_A_ROW:
            _remove_old(self._folder)
            filesystem.write_bytes(str(self._path), outcome.value.encode())

    def reason(self) -> Reason | None:
        """Why it is open, None while it is closed."""
        if not self._path.exists():
            return None
        return Reason(self._path.read_text())


def _remove_old(folder: Path) -> None:
    """Remove what runs that ended long ago left."""
    for path in folder.glob("*"):
        if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
            path.unlink(missing_ok=True)
