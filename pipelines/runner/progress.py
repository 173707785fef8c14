"""What a running job shows: a bar on a terminal, a plain line now and then elsewhere.

The figure is the number of objects in the per-video store, the one place that every worker writes to.
"""

from __future__ import annotations

import os
import time

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shards.dataset.video_store import VideoStore
from shards.storage import filesystem

_LINE_SECONDS = 15.0
_LOOK_SECONDS = 2.0
_LOOK_SHARE = 50
"""Times as long as a look took until the next one."""


class StoreProgress:
    """Counts the videos that are committed while a local job runs; of a bucket only the time that passes is shown."""

    def __init__(self, out: str, console: Console):
        self.console = console
        self._folder = None if filesystem.is_remote(out) else VideoStore(out).folder
        self._started = self._last_line = time.monotonic()
        self._next_look = self._started + _LOOK_SECONDS
        self._before = self._committed()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("videos", total=None, said="videos")

    def __enter__(self) -> StoreProgress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def tick(self) -> None:
        """Look if it is time to."""
        now = time.monotonic()
        if self._folder is None or now < self._next_look:
            return
        said = self.sentence()
        # A store of a million files takes a second to count.
        self._next_look = now + max(_LOOK_SECONDS, _LOOK_SHARE * (time.monotonic() - now))
        self._bar.update(self._task, said=said)
        if not self.console.is_terminal and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            self.console.print(said)

    def sentence(self) -> str:
        """The figures in words."""
        committed = max(self._committed() - self._before, 0)
        minutes = max(time.monotonic() - self._started, 1e-3) / 60
        return f"{committed} videos committed, {committed / minutes:.1f} a minute"

    def _committed(self) -> int:
        if self._folder is None or not filesystem.exists(self._folder):
            return 0
        return sum(len(files) for _, _, files in os.walk(self._folder))
