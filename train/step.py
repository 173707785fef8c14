"""One training step as one compiled program over the whole mesh.

The program is written for the global batch, and the compiler splits it by the layout of the state and the batch: each
layer's weights are gathered where they are used, and its gradients are summed over devices in float32 into the layout
of the parameters. Every example has its own random key, so a step's random choices do not depend on the mesh. An update
that is not finite, or whose loss or gradient is not, is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.stages import Wrapped
from jaxtyping import Array, Float32

from model import objectives, sharding
from model.config import ReserveConfig
from model.losses import contrastive
from model.objectives import Outputs, pretraining_outputs
from model.reserve import MerlotReserve, initial_parameters
from train.config import TrainConfig
from train.mesh import by_example, check_batch, for_mesh, replicated, state_shardings
from train.metrics import accuracy
from train.metrics.example_mask import copies, only
from train.optimizer import pretraining_optimizer, pretraining_schedule
from train.state import TrainState

Metrics = dict[str, Any]
"""Scalars on the device by name."""
Batch = Mapping[str, jax.Array]


def state_shapes(config: TrainConfig) -> TrainState:
    """Return the state as a tree of `jax.ShapeDtypeStruct`; nothing is allocated."""
    return jax.eval_shape(lambda: _fresh_state(config, None))


def batch_shapes(config: TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the arrays of a global batch that the step takes."""
    digests = {"record_digest": jax.ShapeDtypeStruct((config.batch_size, 2), jnp.int32)}
    return objectives.batch_shapes(config.model, config.batch_size) | digests


def initial_state(config: TrainConfig, mesh: Mesh, params: dict | None = None) -> TrainState:
    """Return a new run on the mesh, from fresh parameters or from `params`."""
    shardings = state_shardings(mesh, state_shapes(config))
    if params is None:
        return jax.jit(lambda: _fresh_state(config, None), out_shardings=shardings)()
    # NumPy arrays, because those of one host's device cannot be spread over others.
    params = jax.tree.map(np.asarray, params)
    return jax.jit(lambda params: _fresh_state(config, params), out_shardings=shardings)(params)


def make_step(config: TrainConfig, mesh: Mesh) -> Wrapped:
    """Return the jitted step, from a state, which it donates, and a batch to the next state and its metrics.

    A batch has the reader's arrays for `config.reader()`: of records that are in it twice the second copies are left
    out of the loss. Raises `UsageError` if the batch cannot be split over the mesh.
    """
    check_batch(mesh, config.batch_size, config.microbatches, group_size(config.model))
    config = replace(config, model=for_mesh(config.model, mesh))
    shardings = state_shardings(mesh, state_shapes(config))
    return jax.jit(
        partial(_step, config=config, mesh=mesh),
        in_shardings=(shardings, by_example(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def global_outputs(config: ReserveConfig, params: dict, batch: Batch, key: jax.Array, microbatches: int = 1) -> Outputs:
    """Compute the pairs of all examples of the global batch, in their order; `_spans` are flat indices over the batch.

    With several `microbatches` every device encodes its examples in so many turns, and only the pairs are kept: the
    backward pass encodes every turn again and adds up the gradients of the parameters, so all pairs of the batch are
    still contrasted (GradCache, Gao et al. 2021).
    """
    groups = batch["images"].shape[0] // group_size(config)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(groups))
    module = MerlotReserve(config)
    if microbatches == 1:
        return pretraining_outputs(module, params, batch, keys)
    parts = sharding.batch_parts()

    def turns(array: jax.Array) -> jax.Array:
        """`[microbatches, ...]`, each device's examples staying on it."""
        split = array.reshape(parts, microbatches, -1, *array.shape[1:]).swapaxes(0, 1)
        return sharding.turns_by_example(split.reshape(microbatches, -1, *array.shape[1:]))

    def in_order(array: jax.Array) -> jax.Array:
        """Return the results of all turns in the order of the batch."""
        split = array.reshape(microbatches, parts, -1, *array.shape[2:]).swapaxes(0, 1)
        return sharding.by_example(split.reshape(-1, *array.shape[2:]))

    encode = jax.checkpoint(lambda turn: pretraining_outputs(module, params, *turn))
    outputs = jax.lax.map(encode, (jax.tree.map(turns, dict(batch)), turns(keys)))
    # A flat index of a turn lies in the part of a device; the parts of earlier turns lie before it in the batch.
    spans = outputs["stuff_to_span"]["_spans"]
    size = batch["text_spans"].shape[0] * batch["text_spans"].shape[1] // (parts * microbatches)
    device, place = spans // size, spans % size
    turn = jnp.arange(microbatches)[:, None]
    outputs["stuff_to_span"]["_spans"] = (device * microbatches + turn) * size + place
    return jax.tree.map(in_order, outputs)


def group_size(config: ReserveConfig) -> int:
    """Number of examples that are encoded together, because their spans are chosen together."""
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


def advance(
    state: TrainState, loss: Float32[Array, ""], gradients: dict, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float32[Array, ""]]:
    """Return the next state and the norm of the gradient.

    The update is left out and counted if the loss, the gradient or the update itself is not finite.
    """
    norm = optax.tree.norm(gradients)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
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
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss_of(params: dict) -> tuple[jax.Array, Metrics]:
        outputs = global_outputs(config.model, params, batch, key, config.microbatches)
        outputs = only(outputs, ~repeated, batch, config.model)
        total, info = contrastive(outputs, parity=config.model.parity)
        return total, {**info, **accuracy.accuracies(jax.lax.stop_gradient(outputs), batch, config.model)}

    with sharding.on_mesh(mesh):
        repeated = copies(batch["record_digest"])
        (loss, info), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    gradients = jax.lax.with_sharding_constraint(gradients, state_shardings(mesh, gradients))
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
        "repeated_examples": repeated.sum(),
    }
