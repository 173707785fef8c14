"""The training loop: batches, steps, metrics and checkpoints, until the last step or a request to stop.

The loop knows no losses, command lines or data folders. It continues from the step of the state that it is given.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shards.reader import Reader
from shards.storage import filesystem
from shards.storage.errors import UserError
from train.checkpoint import Checkpoints
from train.config import RunConfig
from train.distributed import hosts
from train.mesh import to_devices
from train.state import TrainState
from train.step import Batch, Metrics

DIVERGED_NAME = "diverged.json"


class DivergenceError(UserError):
    """Updates were skipped because they are not finite, or weights are not finite; the message says which."""


@dataclass(frozen=True)
class LoopConfig:
    """When the loop does what, in steps, and the examples of a step; see `train.config.RunConfig`."""

    steps: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    skip_limit: int
    evaluate_every: int | None = None

    @classmethod
    def of(cls, config: RunConfig, steps: int, evaluate_every: int | None = None) -> LoopConfig:
        """Return the loop of a run until the step `steps`."""
        intervals = (config.log_every, config.checkpoint_every, config.skip_limit)
        return cls(steps, config.batch_size, *intervals, evaluate_every)


@dataclass(frozen=True)
class Hooks:
    """What the loop calls. On several hosts `stop` and `evaluate` must return the same on all of them.

    `stop` is called with the number of the last step before each one. `write` gets a line of metrics, which includes
    `step`. `evaluate` gets the parameters and returns metrics. `profile` is called after the start of each step, with
    the number of steps that this call of `run` has started and the metrics of the last one.
    """

    stop: Callable[[int], bool] = lambda step: False
    write: Callable[[dict[str, float]], None] = lambda line: None
    evaluate: Callable[[dict], dict[str, float]] = lambda params: {}
    profile: Callable[[int, Metrics], None] = lambda started, metrics: None


@dataclass
class _Clock:
    """Time since the last line of metrics, and the part of it that was spent waiting for batches."""

    start: float
    step: int
    waited: float = 0.0

    def metrics(self, step: int, examples: int) -> dict[str, float]:
        """Return the speed since the last call, after the end of a step, and start again."""
        elapsed, steps = max(time.perf_counter() - self.start, 1e-9), step - self.step
        metrics = {
            "seconds_per_step": elapsed / max(steps, 1),
            "examples_per_second": steps * examples / elapsed,
            "wait_share": self.waited / elapsed,
        }
        self.start, self.step, self.waited = time.perf_counter(), step, 0.0
        return metrics


@dataclass(frozen=True)
class _Pending:
    """A step whose metrics are fetched when it has ended, and the reader's state after it."""

    step: int
    metrics: Metrics
    reader: dict[str, Any]


def in_turn(steps: Sequence[Callable[..., Any]], done: int) -> Callable[..., Any]:
    """Return a function that calls the given ones in turn, of whose calls `done` were made by an earlier process."""
    number = itertools.count(done)
    return lambda *arguments: steps[next(number) % len(steps)](*arguments)


def run(
    step_once: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    config: LoopConfig,
    mesh: Mesh,
    state: TrainState,
    reader: Reader,
    checkpoints: Checkpoints,
    workdir: str,
    hooks: Hooks | None = None,
) -> TrainState:
    """Repeat a step until `config.steps` or `hooks.stop`, save the last state and return it.

    The reader must be at the position of the state. The metrics of `step_once` must include `loss` and
    `skipped_in_a_row`. A line of metrics is written every `config.log_every` steps; every `config.evaluate_every`
    steps and after the last one, the metrics of `hooks.evaluate` are a line of their own. All hosts call this. Raises
    `DivergenceError` after `config.skip_limit` skipped updates in a row, and for weights that are not finite, which are
    not saved.
    """
    hooks = hooks or Hooks()
    first = step = saved = int(state.step)
    previous_loss, pending = None, None
    clock = _Clock(time.perf_counter(), step)

    def write(pending: _Pending) -> None:
        """Fetch the metrics of a step and write them; raise if too many updates were skipped."""
        line = _line(pending.step, pending.metrics)
        hooks.write(line | clock.metrics(pending.step, config.batch_size))
        if line["skipped_in_a_row"] >= config.skip_limit:
            raise _diverged(config, line, pending.reader, workdir)

    while step < config.steps and not hooks.stop(step):
        wait_start = time.perf_counter()
        batch = next(reader)
        clock.waited += time.perf_counter() - wait_start
        state, metrics = step_once(state, to_devices(mesh, batch))
        step += 1
        hooks.profile(step - first, metrics)
        # One step runs while the next batch is read; further ahead, batches would fill the memory of the devices.
        jax.block_until_ready(previous_loss)
        previous_loss = metrics["loss"]
        if pending is not None:
            # Its step has ended and the next one runs, so fetching metrics does not leave the devices idle.
            write(pending)
            pending = None
        if step % config.log_every == 0 or step == config.steps:
            pending = _Pending(step, metrics, reader.state())
        every = config.evaluate_every
        evaluates = every is not None and (step % every == 0 or step == config.steps)
        saves = step % config.checkpoint_every == 0 and step < config.steps
        if pending is not None and (evaluates or saves):
            # Both wait for the step anyway, and a run that has diverged must not be saved.
            write(pending)
            pending = None
        if evaluates:
            pause = time.perf_counter()
            hooks.write({"step": step} | hooks.evaluate(state.params))
            clock.start += time.perf_counter() - pause
        if saves:
            _save(checkpoints, state, reader)
            saved = step
    if pending is not None:
        write(pending)
    if step > saved:
        _save(checkpoints, state, reader)
    checkpoints.wait()
    return state


def check_trained(state: TrainState) -> None:
    """Raise `DivergenceError` for a state that must not be exported, because its last update was skipped."""
    skipped = int(state.skipped_in_a_row)
    if skipped:
        raise DivergenceError(
            f"the last {skipped} updates before step {int(state.step)} were not finite and were skipped, so nothing is"
            " exported; lower the learning rate and start in another --workdir"
        )


def _save(checkpoints: Checkpoints, state: TrainState, reader: Reader) -> None:
    """Save a state. Raises `DivergenceError` for weights that are not finite."""
    if not all_finite(state.params):
        raise DivergenceError(
            f"weights are not finite after step {int(state.step)}, so they are not saved; lower the learning rate and"
            " continue from the last checkpoint, or start in another --workdir"
        )
    checkpoints.save(state, reader.state())


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Return whether every number of a tree of float arrays is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _line(step: int, metrics: Metrics) -> dict[str, float]:
    return {"step": step} | {name: float(value) for name, value in jax.device_get(metrics).items()}


def _diverged(config: LoopConfig, line: dict[str, float], reader: dict[str, Any], workdir: str) -> DivergenceError:
    """Write the reader's state after the skipped batches to a file, and return the error that names it."""
    path = filesystem.join(workdir, DIVERGED_NAME)
    step, batches = line["step"], int(line["skipped_in_a_row"])
    last = {"step": step, "batches": batches, "batch_size": config.batch_size, "reader_after_them": reader}
    if hosts.is_first():
        filesystem.write_bytes(path, (json.dumps(last, indent=1) + "\n").encode())
    return DivergenceError(
        f"the loss, gradients or updates of the last {batches} steps were not finite, up to step {step}; {path!r} says"
        " which batches; lower the learning rate, or continue from an earlier checkpoint"
    )
