"""Show the progress of a running job: a spinner on a terminal, a plain line every few seconds elsewhere.

Progress is the number of objects in the per-video store, to which every worker writes.
"""

from __future__ import annotations

import os
import time

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shards.dataset.video_store import VideoStore
from shards.storage import filesystem

_LINE_SECONDS = 15.0
_COUNT_SECONDS = 2.0
_COUNT_SHARE = 50
"""The least time between two counts, as a multiple of the duration of the last one."""


class StoreProgress:
    """The progress of a local job, in committed videos; for a job in a bucket only the elapsed time is shown."""

    def __init__(self, out: str, console: Console):
        self.console = console
        self._folder = None if filesystem.is_remote(out) else VideoStore(out).folder
        self._started = self._last_line = time.monotonic()
        self._next_count = self._started + _COUNT_SECONDS
        self._committed_earlier = self._committed()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[sentence]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("videos", total=None, sentence="videos")

    def __enter__(self) -> StoreProgress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def tick(self) -> None:
        """Count the committed videos and show the progress, if the next count is due."""
        now = time.monotonic()
        if self._folder is None or now < self._next_count:
            return
        sentence = self.sentence()
        # A store of a million files takes a second to count.
        self._next_count = now + max(_COUNT_SECONDS, _COUNT_SHARE * (time.monotonic() - now))
        self._bar.update(self._task, sentence=sentence)
        if not self.console.is_terminal and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            self.console.print(sentence)

    def sentence(self) -> str:
        """Return the progress as a sentence."""
        committed = max(self._committed() - self._committed_earlier, 0)
        minutes = max(time.monotonic() - self._started, 1e-3) / 60
        return f"{committed} videos committed, {committed / minutes:.1f} per minute"

    def _committed(self) -> int:
        if self._folder is None or not filesystem.exists(self._folder):
            return 0
        return sum(len(files) for _, _, files in os.walk(self._folder))
