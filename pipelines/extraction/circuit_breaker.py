"""When a server says stop, the downloads of a machine stop for the rest of the run.

The breaker is a file on the machine, so that all its worker processes see it; other machines have other addresses, and
go on. It opens at the first bot check, or when several downloads of one worker in a row end by faults of the network,
of the platform or of this address, which say nothing about the videos.
"""

from __future__ import annotations

import time
from pathlib import Path

from pipelines.extraction.download_budget import state_folder
from pipelines.extraction.untried import Reason
from shards.outcomes import Outcome
from shards.storage import filesystem

_FAULTS_IN_A_ROW = {
    Outcome.BOT_CHECK: 1,
    Outcome.RATE_LIMITED: 3,
    Outcome.CAPTIONS_REFUSED: 3,
    Outcome.NO_FORMATS_OFFERED: 3,
    Outcome.FORBIDDEN: 10,
    Outcome.NETWORK: 10,
    Outcome.SERVER: 10,
}
"""After how many faults without a video between them the breaker opens, by the last of them."""

_KEPT_SECONDS = 30 * 86_400.0


class Breaker:
    """The breaker of this machine for one run, as one worker sees it; `run` is a token that no other run has."""

    def __init__(self, run: str):
        self._folder = state_folder() / "stopped"
        self._path = self._folder / run
        self._faults = 0

    def note(self, outcome: Outcome | None) -> None:
        """Count how a download ended, `None` for one that gave a video; may open the breaker."""
        limit = _FAULTS_IN_A_ROW.get(outcome)
        self._faults = 0 if limit is None else self._faults + 1
        if limit is not None and self._faults >= limit:
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
