"""The loop: batches, steps, metrics, checkpoints, in that order until the last step or a request to stop.

It knows nothing of command lines or of where data lies, and `run` nothing of losses; whatever it is handed continues
from the state's step.
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
from train.config import TrainConfig
from train.distributed import hosts
from train.evaluation import Evaluation
from train.mesh import to_devices
from train.step import Batch, Metrics, TrainState, make_step

DIVERGED_NAME = "diverged.json"


class DivergenceError(UserError):
    """Too many updates in a row were skipped, the last one was, or weights are not finite; the message says which."""


@dataclass(frozen=True)
class Rhythm:
    """When things happen in a run, in steps, and how many examples a step takes; see `train.config.TrainConfig`."""

    steps: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    skip_limit: int
    evaluate_every: int | None = None


@dataclass
class _Clock:
    """Time since the last line of metrics, and how much of it was spent waiting for batches."""

    begun: float
    step: int
    waited: float = 0.0

    def figures(self, step: int, examples: int) -> dict[str, float]:
        """What a line of metrics says about speed after a step has ended; starts anew."""
        elapsed, steps = max(time.perf_counter() - self.begun, 1e-9), step - self.step
        figures = {
            "seconds_per_step": elapsed / max(steps, 1),
            "examples_per_second": steps * examples / elapsed,
            "wait_share": self.waited / elapsed,
        }
        self.begun, self.step, self.waited = time.perf_counter(), step, 0.0
        return figures


@dataclass(frozen=True)
class _Due:
    """A step whose figures are to be fetched when it has ended, and where the reader stood after it."""

    step: int
    metrics: Metrics
    reader: dict[str, Any]


def train(
    config: TrainConfig,
    mesh: Mesh,
    state: TrainState,
    reader: Reader,
    checkpoints: Checkpoints,
    workdir: str,
    stop_asked: Callable[[int], bool] = lambda step: False,
    report: Callable[[dict[str, float]], None] = lambda metrics: None,
    evaluate: Callable[[dict], Evaluation] | None = None,
    trace: Callable[[int, Metrics], None] = lambda done, metrics: None,
) -> TrainState:
    """Pretrain from the state's step to `config.steps` or until `stop_asked`; see `run`."""
    rhythm = Rhythm(
        config.steps,
        config.batch_size,
        config.log_every,
        config.checkpoint_every,
        config.skip_limit,
        config.evaluate_every if evaluate else None,
    )

    def judge(params: dict) -> dict[str, float]:
        return evaluate(params).metrics()

    step = in_turn([make_step(turn, mesh) for turn in config.turns()], int(state.step))
    return run(step, rhythm, mesh, state, reader, checkpoints, workdir, stop_asked, report, judge, trace)


def in_turn(steps: Sequence[Callable[..., Any]], done: int) -> Callable[..., Any]:
    """One function that calls the given ones in turn, as the next of a run of which `done` calls were made."""
    number = itertools.count(done)
    return lambda *arguments: steps[next(number) % len(steps)](*arguments)


def run(
    step_once: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    rhythm: Rhythm,
    mesh: Mesh,
    state: TrainState,
    reader: Reader,
    checkpoints: Checkpoints,
    workdir: str,
    stop_asked: Callable[[int], bool] = lambda step: False,
    report: Callable[[dict[str, float]], None] = lambda metrics: None,
    evaluate: Callable[[dict], dict[str, float]] = lambda params: {},
    trace: Callable[[int, Metrics], None] = lambda done, metrics: None,
) -> TrainState:
    """Repeat a step from the state's to `rhythm.steps` or until `stop_asked`, and save the last state.

    The reader must stand where the state needs it. Every `rhythm.log_every`-th step `report` gets a line of metrics;
    those of a step must hold `loss` and `skipped_in_a_row`. `trace` gets the number of steps this call has made, and
    the metrics of the last. Every `rhythm.evaluate_every`-th step, and after the last, what `evaluate` makes of the
    parameters becomes a line of its own. On several hosts all call this, and `stop_asked` and `evaluate` must answer
    alike. Raises `DivergenceError` after `rhythm.skip_limit` updates in a row that were not finite, and for weights
    that are not; such weights are not saved.
    """
    begun_at = step = saved = int(state.step)
    before, due = None, None
    clock = _Clock(time.perf_counter(), step)

    def say(due: _Due) -> None:
        """Fetch a step's figures, pass them on, and raise if too many updates were skipped by then."""
        line = _line(due.step, due.metrics)
        report(line | clock.figures(due.step, rhythm.batch_size))
        if line["skipped_in_a_row"] >= rhythm.skip_limit:
            raise _diverged(rhythm, line, due.reader, workdir)

    while step < rhythm.steps and not stop_asked(step):
        asked = time.perf_counter()
        batch = next(reader)
        clock.waited += time.perf_counter() - asked
        state, metrics = step_once(state, to_devices(mesh, batch))
        step += 1
        trace(step - begun_at, metrics)
        # One step runs while the next batch is made; further ahead, batches would pile up on the devices.
        jax.block_until_ready(before)
        before = metrics["loss"]
        if due is not None:
            # Its step has ended now and the next one runs, so that the devices wait for no figures.
            say(due)
            due = None
        if step % rhythm.log_every == 0 or step == rhythm.steps:
            due = _Due(step, metrics, reader.state())
        evaluates = rhythm.evaluate_every and (step % rhythm.evaluate_every == 0 or step == rhythm.steps)
        saves = step % rhythm.checkpoint_every == 0 and step < rhythm.steps
        if due is not None and (evaluates or saves):
            # What follows waits for the step anyway, and nothing is saved of a run that has diverged.
            say(due)
            due = None
        if evaluates:
            paused = time.perf_counter()
            report({"step": step} | evaluate(state.params))
            clock.begun += time.perf_counter() - paused
        if saves:
            _save(checkpoints, state, reader)
            saved = step
    if due is not None:
        say(due)
    if step > saved:
        _save(checkpoints, state, reader)
    checkpoints.wait()
    return state


def check_trained(state: TrainState) -> None:
    """Raise `DivergenceError` if the state is not one to export: its last update was skipped."""
    skipped = int(state.skipped_in_a_row)
    if skipped:
        raise DivergenceError(
            f"the last {skipped} updates before step {int(state.step)} were not finite and were skipped, so nothing is"
            " exported; lower the learning rate and start in another --workdir"
        )


def _save(checkpoints: Checkpoints, state: TrainState, reader: Reader) -> None:
    """Save a state. Raises `DivergenceError` for one that could not be trained on."""
    if not all_finite(state.params):
        raise DivergenceError(
            f"weights are not finite after step {int(state.step)}, so they are not saved; lower the learning rate and"
            " continue from the last checkpoint, or start in another --workdir"
        )
    checkpoints.save(state, reader.state())


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree of float arrays is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _line(step: int, metrics: Metrics) -> dict[str, float]:
    return {"step": step} | {name: float(value) for name, value in jax.device_get(metrics).items()}


def _diverged(rhythm: Rhythm, line: dict[str, float], end: dict[str, Any], workdir: str) -> DivergenceError:
    """Write down where the last batches are in the reader's order, and say so."""
    path = filesystem.join(workdir, DIVERGED_NAME)
    step, batches = line["step"], int(line["skipped_in_a_row"])
    last = {"step": step, "batches": batches, "batch_size": rhythm.batch_size, "reader_after_them": end}
    if hosts.is_first():
        filesystem.write_bytes(path, (json.dumps(last, indent=1) + "\n").encode())
    return DivergenceError(
        f"the loss, gradients or updates of the last {batches} steps were not finite, up to step {step}; {path!r} says"
        " which batches; lower the learning rate, or continue from an earlier checkpoint"
    )
