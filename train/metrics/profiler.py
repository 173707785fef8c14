"""Profile some steps of a run, for TensorBoard's profile page or Perfetto.

The first steps, which compile and fill queues, are not profiled. JAX writes profiles to local disks only; those of a
run in a bucket are uploaded when they are complete.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax

from shards.storage import filesystem

NAME = "profile"
SKIPPED = 3


class Profiler:
    """Profiles `steps` steps after the first `SKIPPED` of a process, once, into a folder on a disk or in a bucket."""

    def __init__(self, folder: str, steps: int):
        self._folder, self._steps = folder, steps
        self._running: str | None = None

    def __call__(self, started: int, result: Any) -> None:
        """Start or stop profiling after the start of this process's step number `started`, which returns `result`."""
        if not self._steps:
            return
        if started == SKIPPED:
            jax.block_until_ready(result)
            self._running = tempfile.mkdtemp() if filesystem.is_remote(self._folder) else self._folder
            jax.profiler.start_trace(self._running)
        elif started == SKIPPED + self._steps:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Write the profile if the run ends early. Raises `StorageError` if it cannot be uploaded."""
        if self._running is None:
            return
        written, self._running = self._running, None
        jax.profiler.stop_trace()
        if written != self._folder:
            try:
                _upload(Path(written), self._folder)
            finally:
                shutil.rmtree(written)


def _upload(source: Path, folder: str) -> None:
    """Copy all files below `source` into a folder of a bucket, under the same names."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        target = filesystem.join(folder, *path.relative_to(source).parts)
        with path.open("rb") as file, filesystem.create(target) as copy:
            shutil.copyfileobj(file, copy)
