"""What a running job shows: a bar on a terminal, a plain line now and then elsewhere.

The figures come from the ledger, the one place where every worker writes what it finished.
"""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from shards import filesystem, ledger

_LINE_SECONDS = 15.0


class ExtractionProgress:
    """Counts the new lines in a folder of the ledger: done, rejected, failed, video seconds per second, time left."""

    def __init__(self, folder: str, total: int, console: Console):
        self.folder = folder
        self.total, self.console = total, console
        self.counts: Counter[str] = Counter()
        self.video_seconds = 0.0
        self._positions = {path: filesystem.size(path) for path in filesystem.list_files(self.folder, ".jsonl")}
        self._started = self._last_line = time.monotonic()
        self._next_look = 0.0
        self._bar = Progress(
            TextColumn("extract"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("extract", total=total, said="")

    def __enter__(self) -> ExtractionProgress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def tick(self) -> None:
        """Look if it is time to: a bucket is asked less often than a disk."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + (_LINE_SECONDS if filesystem.is_remote(self.folder) else 0)
            self.look()

    def look(self) -> None:
        """Count what the workers wrote since the last time."""
        for path in filesystem.list_files(self.folder, ".jsonl"):
            start = self._positions.get(path, 0)
            complete = filesystem.read_bytes(path, start).rpartition(b"\n")[0]
            for entry in ledger.parse_lines(complete):
                self.counts[entry.kind.split("-")[0]] += 1
                self.video_seconds += entry.video_seconds
            self._positions[path] = start + len(complete) + (1 if complete else 0)
        self._bar.update(self._task, completed=self.counts.total(), said=self.sentence())
        if not self.console.is_terminal and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            self.console.print(f"{self.counts.total()}/{self.total} videos: {self.sentence()}")

    def sentence(self) -> str:
        """The figures in words."""
        elapsed = max(time.monotonic() - self._started, 1e-3)
        done = self.counts.total()
        left = elapsed / done * (self.total - done) if done else 0
        return (
            f"{self.counts['done']} done, {self.counts['rejected']} rejected, {self.counts['failed']} failed,"
            f" {self.video_seconds / elapsed:.0f} s of video per s, {left / 60:.0f} min left"
        )
