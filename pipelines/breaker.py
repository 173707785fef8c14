"""When a server says stop, the whole job stops downloading.

The breaker is a file in the data folder, so that workers in other processes see it too. It opens at the first bot
check, or at the third request in a row of one worker to slow down, and closes when the job starts again.
"""

from __future__ import annotations

from ingest.outcomes import Outcome
from shards import filesystem

_NAME = "downloading-stopped"
_LIMITED_IN_A_ROW = 3


class Breaker:
    """The breaker of a data folder, as one worker sees it."""

    def __init__(self, out: str):
        self.path = filesystem.join(out, _NAME)
        self._limited = 0

    def note(self, outcome: Outcome) -> None:
        """Learn how a download ended; may open the breaker."""
        self._limited = self._limited + 1 if outcome is Outcome.RATE_LIMITED else 0
        if outcome is Outcome.BOT_CHECK or self._limited >= _LIMITED_IN_A_ROW:
            filesystem.write_bytes(self.path, outcome.value.encode())

    def is_open(self) -> bool:
        """Whether nobody may download any more."""
        return filesystem.exists(self.path)

    def reason(self) -> Outcome:
        """Which outcome opened it."""
        return Outcome(filesystem.read_bytes(self.path).decode())

    def close(self) -> None:
        """Let a new job try again."""
        filesystem.remove(self.path)
