"""The finetuning step and the evaluation of a batch, each one compiled program over the mesh.

The state, its sharding and its safeguards are those of pretraining; the optimizer decays toward the weights that
finetuning began with, which its state carries (docs/spec/training.md 7).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from model import sharding
from model.config import ReserveConfig
from model.reserve import MerlotReserve, parameter_shapes
from shards.reading.evaluation import IS_RECORD
from train.config import OptimizerConfig
from train.mesh import batch_shards, by_example, for_mesh, replicated, state_shardings
from train.optimizer import finetuning_optimizer, linear_schedule
from train.state import TrainState
from train.step import Batch, Metrics, advance
from train.tasks import Logits, Task

_NOT_COMPUTED = ("id", IS_RECORD)


def task_shapes(task: Task, model: ReserveConfig) -> dict:
    """Return the parameters of a classifier as a tree of `jax.ShapeDtypeStruct`."""
    shapes = {name: tree for name, tree in parameter_shapes(model).items() if name not in task.dropped}
    return shapes | {"proj": {"kernel": jax.ShapeDtypeStruct((model.hidden_size, 1), jnp.float32)}}


def state_shapes(task: Task, model: ReserveConfig, optimizer: OptimizerConfig) -> TrainState:
    """Return the state as a tree of `jax.ShapeDtypeStruct`; nothing is allocated."""
    return jax.eval_shape(partial(_fresh_state, optimizer=optimizer), task_shapes(task, model))


def initial_state(params: dict, optimizer: OptimizerConfig, mesh: Mesh) -> TrainState:
    """Return a new run on the mesh, from and toward `params`."""
    fresh = partial(_fresh_state, optimizer=optimizer)
    shardings = state_shardings(mesh, jax.eval_shape(fresh, params))
    # NumPy arrays, because those of one host's device cannot be spread over others.
    return jax.jit(fresh, out_shardings=shardings)(jax.tree.map(np.asarray, params))


def _fresh_state(params: dict, optimizer: OptimizerConfig) -> TrainState:
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        opt_state=finetuning_optimizer(optimizer, params).init(params),
        key=jax.random.key_data(jax.random.key(0)),
        skipped=zero,
        skipped_in_a_row=zero,
    )


def make_step(
    task: Task, model: ReserveConfig, optimizer: OptimizerConfig, mesh: Mesh, microbatches: int = 1
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return the compiled step; it takes over the state and returns the next one with float32 metrics.

    Each device takes its examples in `microbatches` parts, one after the other; their gradients are averaged in
    float32, so that only memory depends on the number.
    """
    shardings = state_shardings(mesh, state_shapes(task, model, optimizer))
    return jax.jit(
        partial(
            _step, task=task, model=for_mesh(model, mesh), optimizer=optimizer, mesh=mesh, microbatches=microbatches
        ),
        in_shardings=(shardings, by_example(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def _step(
    state: TrainState,
    batch: Batch,
    *,
    task: Task,
    model: ReserveConfig,
    optimizer: OptimizerConfig,
    mesh: Mesh,
    microbatches: int,
) -> tuple[TrainState, Metrics]:
    shards, module = batch_shards(mesh), MerlotReserve(model)

    def in_parts(array: jax.Array) -> jax.Array:
        """`[microbatches, examples, ...]`, each device's examples staying on it."""
        parts = array.reshape(shards, microbatches, -1, *array.shape[1:]).swapaxes(0, 1)
        return sharding.turns_by_example(parts.reshape(microbatches, -1, *array.shape[1:]))

    def loss_of(params: dict, part: Batch) -> tuple[jax.Array, Metrics]:
        logits = task.logits(module, params, part)
        right = {f"accuracy/{name}": hit for name, hit in task.right(logits, part).items()}
        means = jax.tree.map(lambda each: each.astype(jnp.float32).mean(), task.losses(logits, part) | right)
        return reduce(jnp.add, (value for name, value in means.items() if name.startswith("loss"))), means

    examples = {name: array for name, array in batch.items() if name not in _NOT_COMPUTED}
    with sharding.on_mesh(mesh):
        find = jax.value_and_grad(loss_of, has_aux=True)
        if microbatches == 1:
            (loss, info), gradients = find(state.params, examples)
        else:
            parts = jax.tree.map(in_parts, examples)

            def add(total: Any, part: Batch) -> tuple[Any, None]:
                part_results = find(state.params, part)
                return jax.tree.map(lambda t, f: t + f.astype(jnp.float32) / microbatches, total, part_results), None

            shapes = jax.eval_shape(find, state.params, {name: part[0] for name, part in parts.items()})
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), shapes)
            ((loss, info), gradients), _ = jax.lax.scan(add, zeros, parts)
    gradients = jax.lax.with_sharding_constraint(gradients, state_shardings(mesh, gradients))
    following, norm = advance(state, loss, gradients, finetuning_optimizer(optimizer, state.params))
    schedule = linear_schedule(optimizer.warmup_steps, optimizer.total_steps)
    return following, {
        "loss": loss,
        **info,
        "grad_norm": norm,
        "learning_rate": optimizer.learning_rate * schedule(state.opt_state[2].count),
        "skipped": following.skipped,
        "skipped_in_a_row": following.skipped_in_a_row,
    }


def make_evaluation(
    task: Task, model: ReserveConfig, mesh: Mesh
) -> Callable[[dict, Batch], tuple[Batch, Logits, dict[str, jax.Array], dict[str, jax.Array]]]:
    """Compile the evaluation of a batch: its ids and mask, logits, credit and labels, all of it on every host."""
    return jax.jit(
        partial(_evaluate, task=task, model=for_mesh(model, mesh), mesh=mesh),
        in_shardings=(None, by_example(mesh)),
        out_shardings=replicated(mesh),
    )


def _evaluate(
    params: dict, batch: Batch, *, task: Task, model: ReserveConfig, mesh: Mesh
) -> tuple[Batch, Logits, dict[str, jax.Array], dict[str, jax.Array]]:
    with sharding.on_mesh(mesh):
        logits = task.logits(MerlotReserve(model), params, batch)
    return {name: batch[name] for name in _NOT_COMPUTED}, logits, task.right(logits, batch), task.labels(batch)
