"""What every training run does around its loop: start on all hosts, lock the work folder, write metrics, close.

run = Run.start(options.workdir)        # signals, compilation cache, logging, console
run.check_same_options(...)             # all hosts were started with the same options
with run.locked():                      # one run per work folder and process
    ...                                 # check the stored configuration, restore or initialize
    with run.hooks(...) as hooks:       # metric writer and profiler
        loop.run(..., hooks)
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from rich.console import Console

from model.checkpoint_location import CHECKPOINTS_NAME
from shards.storage import filesystem
from train.checkpoint import Checkpoints, silence_orbax
from train.compilation.compiling import announce, keep_programs
from train.config import RunConfig
from train.distributed import hosts
from train.loop import Hooks
from train.metrics.metric_writer import MetricWriter
from train.metrics.profiler import NAME as PROFILE_NAME
from train.metrics.profiler import Profiler


@dataclass(frozen=True)
class Run:
    """A process of a run in a work folder. Only the first process prints to the console."""

    workdir: str
    console: Console
    stop: hosts.Stop

    @classmethod
    def start(cls, workdir: str) -> Run:
        """Prepare this process: SIGTERM requests a stop, compiled programs are cached, warnings go to the console."""
        stop = hosts.Stop()
        keep_programs(workdir)
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=not hosts.is_first())
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        silence_orbax()
        return cls(workdir, console, stop)

    def in_folder(self, name: str) -> Run:
        """Return the run of a folder in this work folder, as one of a sweep."""
        return dataclasses.replace(self, workdir=filesystem.join(self.workdir, name))

    def check_same_options(self, *options: object) -> None:
        """Raise `UsageError` on every process unless all were started with the same options."""
        hosts.check_same(repr(options).encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the work folder and lock it for this process. Raises `BusyError` if another run holds the lock."""
        filesystem.make_folder(self.workdir)
        with filesystem.exclusive(filesystem.join(self.workdir, f".lock-{jax.process_index()}")):
            yield

    def checkpoints(self, config: RunConfig, keep_every: int | None = None) -> Checkpoints:
        """Return the checkpoints of the work folder."""
        return Checkpoints(filesystem.join(self.workdir, CHECKPOINTS_NAME), config.keep, keep_every)

    @contextlib.contextmanager
    def hooks(
        self,
        step: int,
        steps: int,
        profile: int,
        config: Mapping[str, Any],
        evaluate: Callable[[dict], dict[str, float]] | None = None,
        flops: int = 0,
    ) -> Iterator[Hooks]:
        """Open the metric writer and the profiler of a run from `step` to `steps` and yield the hooks of its loop.

        `profile` is the number of steps to profile, `config` what experiment trackers store, `flops` the
        floating-point operations of one example.
        """
        profiler = Profiler(filesystem.join(self.workdir, PROFILE_NAME), profile)
        if step < steps:
            announce(self.console, "the training step")
        with MetricWriter(self.workdir, step, steps, self.console, flops, config) as writer:
            yield Hooks(self.stop, writer, evaluate or Hooks.evaluate, profiler)
        profiler.close()

    def report_stop(self, step: int, steps: int) -> None:
        """Print how to continue a run that was stopped."""
        self.console.print(f"stopped at step {step} of {steps}; the same command continues")
