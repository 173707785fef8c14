"""A request to stop: SIGTERM, as schedulers send it before they take a machine away."""

from __future__ import annotations

import signal


class StopRequest:
    """Whether SIGTERM came since this was made; the loop looks between two steps."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        del number, frame
        self.asked = True
