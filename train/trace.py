"""A profile of some steps of a run, for TensorBoard's profile page or Perfetto.

The first steps compile and fill the queues, so they are left out.
"""

from __future__ import annotations

from typing import Any

import jax

from shards import filesystem
from shards.errors import UsageError

NAME = "profile"
SKIPPED = 3


class Trace:
    """Records `steps` steps after the first `SKIPPED` of a process into a folder, once.

    Raises `UsageError` if the folder is in a bucket.
    """

    def __init__(self, folder: str, steps: int):
        if steps and filesystem.is_remote(folder):
            raise UsageError(f"a profile cannot be written to {folder!r}; profile a run with a local --workdir")
        self._folder, self._steps = folder, steps
        self._running = False

    def __call__(self, done: int, result: Any) -> None:
        """Take note that this process has started its `done`-th step, which gives `result`."""
        if not self._steps:
            return
        if done == SKIPPED:
            jax.block_until_ready(result)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif done == SKIPPED + self._steps:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Write what was recorded, if the run ends early."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
