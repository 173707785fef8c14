"""The published optimizers: Adam with moments in bfloat16, decoupled weight decay, warm-up and decay of the rate.

Pretraining decays weights toward zero and finetuning toward where it started (docs/spec/training.md 1, 7). Everything
is a plain optax transform, so the state shards and saves like any other tree.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from train.config import OptimizerConfig

SIGN_STEP = 1 + 2**-9
"""What a negative sign multiplies a stored second moment by: about one more bit of mantissa."""

FINETUNING_DECAY_ABOVE = 4096
"""Finetuning decays larger leaves only, which spares every bias and the new output layer.

See docs/spec/training.md 7.1.
"""

_SCANNED = "layers"


class CompactAdamState(NamedTuple):
    """Adam's state in bfloat16; `nu` is in the code of `encode_second_moment`."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride] - the name that optax gives it
    mu: optax.Updates
    nu: optax.Updates


class OriginState(NamedTuple):
    """Where finetuning started, bfloat16; an empty scalar for leaves that are not decayed."""

    origin: optax.Params


def encode_second_moment(v: jax.Array) -> jax.Array:
    """Return the cube of `v`, float32, in bfloat16, with the better of two multipliers in its sign.

    See docs/spec/training.md 1.2.
    """
    cube = v * v * v
    stored = cube.astype(jnp.bfloat16)
    wide = stored.astype(jnp.float32)
    closer = jnp.abs(wide - cube) < jnp.abs(SIGN_STEP * wide - cube)
    return jnp.where(closer, stored, -stored)


def decode_second_moment(code: jax.Array) -> jax.Array:
    """Return the float32 second moment of a code; a round trip is off by at most 1.3e-3 of the value."""
    wide = code.astype(jnp.float32)
    return jnp.cbrt(jnp.abs(wide) * jnp.where(wide >= 0, 1.0, SIGN_STEP))


def scale_by_compact_adam(
    beta_1: float, beta_2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformation:
    """Return Adam's scaling of float32 gradients with both moments stored in bfloat16 (docs/spec/training.md 1.2).

    The update uses the moments before they are rounded.
    """

    def init(params: optax.Params) -> CompactAdamState:
        def zeros() -> optax.Updates:
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.bfloat16), params)

        return CompactAdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, CompactAdamState]:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        mu = jax.tree.map(lambda g, m: (1 - beta_1) * g + beta_1 * m.astype(jnp.float32), updates, state.mu)
        nu = jax.tree.map(lambda g, n: (1 - beta_2) * g**2 + beta_2 * decode_second_moment(n), updates, state.nu)
        mean, square = mu, nu
        if bias_correction:
            mean, square = (_corrected(m, b, count) for m, b in ((mu, beta_1), (nu, beta_2)))
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mean, square)
        stored = jax.tree.map(lambda m: m.astype(jnp.bfloat16), mu), jax.tree.map(encode_second_moment, nu)
        return scaled, CompactAdamState(count, *stored)

    return optax.GradientTransformation(init, update)


def scale_by_float32_adam(
    beta_1: float, beta_2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformation:
    """Plain Adam scaling, with or without bias correction."""
    if bias_correction:
        return optax.scale_by_adam(beta_1, beta_2, eps)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, beta_1, 1)
        nu = optax.tree.update_moment(updates, state.nu, beta_2, 2)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return scaled, optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(beta_1, beta_2, eps).init, update)


def cosine_schedule(warmup_steps: int, total_steps: int, final_scale: float) -> optax.Schedule:
    """Return the scale of the learning rate in pretraining, down to `final_scale` (docs/spec/training.md 1.4)."""

    def scale(step: Any) -> jax.Array:
        cosine = (1 - jnp.cos(math.pi * _progress(step, warmup_steps, total_steps))) / 2
        return _warmed_up(step, warmup_steps, final_scale + (1 - final_scale) * (1 - cosine))

    return scale


def linear_schedule(warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Return the scale of the learning rate in finetuning, from 0 to 1 and down to 0 (docs/spec/training.md 1.4)."""
    return lambda step: _warmed_up(step, warmup_steps, 1 - _progress(step, warmup_steps, total_steps))


def pretraining_schedule(config: OptimizerConfig) -> optax.Schedule:
    """Return the schedule of `pretraining_optimizer`, a scale of the peak rate."""
    return cosine_schedule(config.warmup_steps, config.total_steps, config.final_scale)


def pretraining_decay_mask(params: optax.Params) -> optax.Params:
    """True for leaves of more than one dimension, the two-dimensional biases included (docs/spec/training.md 1.3)."""
    return _by_layer_shape(params, lambda shape: len(shape) > 1)


def finetuning_decay_mask(params: optax.Params) -> optax.Params:
    """True for large leaves of more than one dimension (docs/spec/training.md 7.1)."""
    return _by_layer_shape(params, lambda shape: len(shape) > 1 and math.prod(shape) > FINETUNING_DECAY_ABOVE)


def pretraining_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return Adam, decay toward zero, schedule and rate, in the published order (docs/spec/training.md 1.1)."""
    return optax.chain(
        _adam(config, config.bias_correction),
        optax.add_decayed_weights(config.weight_decay, pretraining_decay_mask),
        optax.scale_by_schedule(pretraining_schedule(config)),
        optax.scale(-config.learning_rate),
    )


def finetuning_optimizer(config: OptimizerConfig, initial_params: optax.Params) -> optax.GradientTransformation:
    """Return bias-corrected Adam, decay toward `initial_params`, linear schedule and rate (docs/spec/training.md 7.1).

    `config.final_scale` and `config.bias_correction` are not used.
    """
    return optax.chain(
        _adam(config, bias_correction=True),
        decay_toward(initial_params, config.weight_decay),
        optax.scale_by_schedule(linear_schedule(config.warmup_steps, config.total_steps)),
        optax.scale(-config.learning_rate),
    )


def decay_toward(initial_params: optax.Params, rate: float) -> optax.GradientTransformation:
    """Add `rate` times the way from the start, kept in bfloat16, to large leaves (docs/spec/training.md 7.1)."""
    mask = finetuning_decay_mask(initial_params)

    def init(params: optax.Params) -> OriginState:
        del params
        start = jax.tree.map(lambda p, m: p.astype(jnp.bfloat16) if m else jnp.zeros(()), initial_params, mask)
        return OriginState(start)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, OriginState]:
        def pulled(u: jax.Array, p: jax.Array, origin: jax.Array, decayed: bool) -> jax.Array:
            return u - rate * origin.astype(jnp.float32) + rate * p if decayed else u

        return jax.tree.map(pulled, updates, params, state.origin, mask), state

    return optax.GradientTransformation(init, update)


def _adam(config: OptimizerConfig, bias_correction: bool) -> optax.GradientTransformation:
    make = scale_by_compact_adam if config.moments == "bfloat16" else scale_by_float32_adam
    return make(config.beta_1, config.beta_2, config.eps, bias_correction)


def _corrected(moment: optax.Updates, decay: float, count: jax.Array) -> optax.Updates:
    correction = 1 - decay ** count.astype(jnp.float32)
    return jax.tree.map(lambda leaf: leaf / correction, moment)


def _progress(step: Any, warmup_steps: int, total_steps: int) -> jax.Array:
    return jnp.minimum((step - warmup_steps) / (total_steps - warmup_steps + 1), 1.0)


def _warmed_up(step: Any, warmup_steps: int, after: jax.Array) -> jax.Array:
    return jnp.where(step < warmup_steps, step / max(warmup_steps, 1), after)


def _by_layer_shape(params: optax.Params, rule) -> optax.Params:
    """Return a rule on the shape of every leaf, taken without the axis of stacked layers."""

    def applied(path: tuple, leaf: jax.Array) -> bool:
        scanned = any(getattr(key, "key", None) == _SCANNED for key in path)
        return rule(leaf.shape[1:] if scanned else leaf.shape)

    return jax.tree_util.tree_map_with_path(applied, params)
