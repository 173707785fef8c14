"""One training step as one compiled program over the whole mesh.

The forward runs over groups of examples with a key each, so that a step's random choices do not depend on the mesh; the
losses see all pairs of the global batch. Every data shard has its own gradient, and their sum is taken in float32,
whatever the network computes in. An update whose loss or gradient is not finite is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.config import ReserveConfig
from model.losses import contrastive
from model.objectives import Outputs, pretraining_outputs
from model.reserve import MerlotReserve, initial_parameters
from train import accuracy
from train.config import TrainConfig
from train.mesh import BATCH_AXES, batch_shards, by_example, check_batch, replicated, state_shardings
from train.optimizer import pretraining_optimizer, pretraining_schedule

Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]


@struct.dataclass
class TrainState:
    """All that a step changes.

    `key uint32 [2]` is the run's random key, the same throughout; `skipped` and `skipped_in_a_row` count updates that
    were left out.
    """

    step: jax.Array
    params: dict
    opt_state: Any
    key: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array


def state_shapes(config: TrainConfig) -> TrainState:
    """The state as a tree of `jax.ShapeDtypeStruct`; nothing is allocated."""
    return jax.eval_shape(lambda: _fresh_state(config, None))


def initial_state(config: TrainConfig, mesh: Mesh, params: dict | None = None) -> TrainState:
    """A new run on the mesh, from fresh parameters or from `params`."""
    shardings = state_shardings(mesh, state_shapes(config))
    if params is None:
        return jax.jit(lambda: _fresh_state(config, None), out_shardings=shardings)()
    # NumPy arrays, because those of one host's device cannot be spread over others.
    params = jax.tree.map(np.asarray, params)
    return jax.jit(lambda params: _fresh_state(config, params), out_shardings=shardings)(params)


def make_step(config: TrainConfig, mesh: Mesh) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled step; it takes over the state and returns the next one with float32 metrics.

    Raises `UsageError` if the batch cannot be split over the mesh.
    """
    check_batch(mesh, config.batch_size, config.microbatches, _group_size(config.model))
    shardings = state_shardings(mesh, state_shapes(config))
    return jax.jit(
        partial(_step, config=config, mesh=mesh),
        in_shardings=(shardings, by_example(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def global_outputs(
    config: ReserveConfig,
    params: dict,
    batch: Batch,
    key: jax.Array,
    shards: int = 1,
    axes: tuple[str, ...] = (),
    microbatches: int = 1,
) -> Outputs:
    """The pairs of all examples from parameters with a leading axis of `shards` equal copies.

    Copy i serves the i-th part of the batch, which is laid over the mesh axes `axes`. Pairs are in the order of their
    examples, and `_spans` are flat indices over the batch. With several `microbatches` each part is encoded in so many
    turns, and only the pairs are kept: the backward pass encodes every turn again and adds up the gradients of the
    parameters, so all pairs of the batch are still contrasted (GradCache, Gao et al. 2021).
    """
    size = _group_size(config)
    examples = batch["images"].shape[0]
    groups = examples // size
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(groups))

    def split(array: jax.Array, width: tuple[int, ...]) -> jax.Array:
        """`[microbatches, shards, groups, ...]`, each device's examples staying on it."""
        return array.reshape(shards, microbatches, -1, *width, *array.shape[1:]).swapaxes(0, 1)

    def forward(params: dict, group: Batch, key: jax.Array) -> Outputs:
        return pretraining_outputs(MerlotReserve(config), params, group, key)

    over_groups = jax.vmap(forward, in_axes=(None, 0, 0))
    over_shards = jax.vmap(over_groups, spmd_axis_name=axes or None)
    given = {name: split(array, (size,)) for name, array in batch.items()}, split(keys, ())
    if microbatches == 1:
        parts = over_shards(params, *jax.tree.map(lambda part: part[0], given))
    else:
        encode = jax.checkpoint(lambda turn: over_shards(params, *turn))
        turns = jax.lax.map(encode, given)
        parts = jax.tree.map(lambda turn: turn.swapaxes(0, 1).reshape(shards, -1, *turn.shape[3:]), turns)
    starts = jnp.arange(groups) * size * batch["text_spans"].shape[1]
    parts["stuff_to_span"]["_spans"] += starts.reshape(shards, -1, 1)
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[3:]), parts)


def _group_size(config: ReserveConfig) -> int:
    """Examples that are encoded together, because their spans are chosen together."""
    return config.span_group if config.span_choice == "group" else 1


def _fresh_state(config: TrainConfig, params: dict | None) -> TrainState:
    key = jax.random.key(config.seed)
    params = initial_parameters(config.model, jax.random.fold_in(key, 0)) if params is None else params
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        opt_state=pretraining_optimizer(config.optimizer).init(params),
        key=jax.random.key_data(jax.random.fold_in(key, 1)),
        skipped=zero,
        skipped_in_a_row=zero,
    )


def shard_copies(params: dict, mesh: Mesh) -> dict:
    """The parameters once for every part of the batch, so that each part has its own gradient."""
    shards = batch_shards(mesh)
    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (shards, *leaf.shape)), params)
    return jax.lax.with_sharding_constraint(copies, NamedSharding(mesh, PartitionSpec(BATCH_AXES)))


def sum_over_shards(gradients: dict, mesh: Mesh) -> dict:
    """The float32 sum of the gradients of all copies, laid out like the parameters."""
    total = jax.tree.map(lambda g: g.astype(jnp.float32).sum(axis=0), gradients)
    return jax.lax.with_sharding_constraint(total, state_shardings(mesh, total))


def advance(
    state: TrainState, loss: jax.Array, gradients: dict, optimizer: optax.GradientTransformation
) -> tuple[TrainState, jax.Array]:
    """The next state and the gradient's norm; the update is left out and counted if a number is not finite."""
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    new = optax.apply_updates(state.params, updates), opt_state
    params, opt_state = jax.tree.map(partial(jnp.where, finite), new, (state.params, state.opt_state))
    skipped = (~finite).astype(jnp.int32)
    following = TrainState(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        key=state.key,
        skipped=state.skipped + skipped,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * skipped,
    )
    return following, norm


def _step(state: TrainState, batch: Batch, *, config: TrainConfig, mesh: Mesh) -> tuple[TrainState, Metrics]:
    shards = batch_shards(mesh)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss_of(copies: dict) -> tuple[jax.Array, Metrics]:
        outputs = global_outputs(config.model, copies, batch, key, shards, BATCH_AXES, config.microbatches)
        total, info = contrastive(outputs, parity=config.model.parity)
        return total, {**info, **accuracy.accuracies(jax.lax.stop_gradient(outputs), batch, config.model)}

    copies = shard_copies(state.params, mesh)
    (loss, info), gradients = jax.value_and_grad(loss_of, has_aux=True)(copies)
    gradients = sum_over_shards(gradients, mesh)
    following, norm = advance(state, loss, gradients, pretraining_optimizer(config.optimizer))
    scales = jnp.exp(jnp.minimum(state.params["contrastive_scales"], jnp.log(100.0)))
    rate = config.optimizer.learning_rate * pretraining_schedule(config.optimizer)(state.opt_state[2].count)
    return following, {
        "loss": loss,
        **info,
        "grad_norm": norm,
        "learning_rate": rate,
        **{f"scale/{name}": scale for name, scale in zip(accuracy.OBJECTIVES, scales, strict=True)},
        "skipped": following.skipped,
        "skipped_in_a_row": following.skipped_in_a_row,
    }
