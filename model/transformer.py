"""The transformer stack that every encoder is made of: attention, feed-forward layers and their scan or unrolling.

The names of modules and parameters are those of the published checkpoints (docs/spec/model.md 6).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from model import attention, sharding
from model.attention import Implementation, Mask
from model.config import ReserveConfig
from model.dense import OUTPUT_NAME, Dense
from model.rotary import RotaryTable, table

LAYER_NORM_EPSILON = 1e-5
_SCANNED = "layers"


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Normal numbers cut at two deviations of `min(18 / fan_in, 0.02) / sqrt(2)` (docs/spec/model.md 11)."""
    fan_in = 1
    for side in shape[:-1]:
        fan_in *= side
    scale = min(18 / fan_in, 0.02) / 2**0.5
    return jax.random.truncated_normal(key, -2, 2, shape, dtype) * jnp.asarray(scale, dtype)


def kernel_initializer(config: ReserveConfig) -> nn.initializers.Initializer:
    """Return how the dense layers of a new model are drawn; see `ReserveConfig.initialization`."""
    return kernel_init if config.initialization == "published" else nn.initializers.lecun_normal()


def gelu(x: jax.Array) -> jax.Array:
    """Return the sigmoid approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def dense(config: ReserveConfig, name: str, *features: int, axes: int = 1, use_bias: bool = True) -> Dense:
    """Return a linear map of the last `axes` dimensions to `features`, in the model's dtype."""
    return Dense(features, config.dtype, kernel_initializer(config), axes, use_bias, name=name)


def layer_norm(config: ReserveConfig, name: str) -> nn.LayerNorm:
    """Return a layer norm with float32 statistics and an output in the model's dtype."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, name=name)


class Attention(nn.Module):
    """Self-attention with one fused projection and positions on queries and keys."""

    config: ReserveConfig
    implementation: Implementation

    @nn.compact
    def __call__(self, x: jax.Array, positions: RotaryTable, mask: Mask | None) -> jax.Array:
        """`x [batch, n, hidden]` mixed over n."""
        cfg = self.config
        qkv = dense(cfg, "qkv", 3 * cfg.heads, cfg.head_size)(x)
        mixed = attention.attend(qkv, positions, mask, cfg, self.implementation)
        return dense(cfg, "attn_proj", cfg.hidden_size, axes=2, use_bias=False)(mixed)


class FeedForward(nn.Module):
    """The position-wise network, four times as wide inside."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x [..., hidden]` to the same shape."""
        cfg = self.config
        inner = dense(cfg, "intermediate", 4 * cfg.hidden_size)(x)
        return dense(cfg, "out", cfg.hidden_size, use_bias=False)(gelu(inner))


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    config: ReserveConfig
    implementation: Implementation

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch n hidden"], positions: RotaryTable, mask: Mask | None
    ) -> Float[Array, "batch n hidden"]:
        """Apply attention and the feed-forward layer."""
        mix = Attention(self.config, self.implementation, name="attention_layer")
        x = x + mix(layer_norm(self.config, "pre_attn_ln")(x), positions, mask)
        x = x + FeedForward(self.config, name="mlp_layer")(layer_norm(self.config, "pre_mlp_ln")(x))
        return sharding.by_example(x)


class Transformer(nn.Module):
    """A stack of layers, with or without a learned summary token in front (docs/spec/model.md 6.5).

    `layers` and `remat` differ between the stacks of one model. With `config.scan_layers` the layers' parameters are
    stacked under "layers"; see `stack_layers`.
    """

    config: ReserveConfig
    layers: int
    remat: str = "none"
    summary: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch n hidden"],
        coordinates: Float[Array, "*tables n axes"],
        segment_ids: Int[Array, "rows n"] | None = None,
    ) -> tuple[Float[Array, "batch hidden"] | None, Float[Array, "batch n hidden"]]:
        """Encode a batch of sequences; no segment ids means no mask.

        Returns the projected summary (None without a summary token) and the sequence. The summary token has coordinate
        0 and segment id 0.
        """
        cfg = self.config
        x = x.astype(cfg.dtype)
        if self.summary:
            token = self.param("cls", nn.initializers.normal(0.02), (cfg.hidden_size,))
            token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, cfg.hidden_size))
            x = jnp.concatenate([token, x], axis=1)
            coordinates = _padded(coordinates, -2, before=1)
            segment_ids = None if segment_ids is None else _padded(segment_ids, -1, before=1)
        length = x.shape[1]
        chosen = attention.implementation(cfg, len(x), length)
        missing = attention.padded_length(length, chosen) - length
        if missing:
            segment_ids = jnp.zeros((1, length), jnp.int32) if segment_ids is None else segment_ids
            segment_ids = _padded(segment_ids, -1, after=missing, value=attention.PADDING_ID)
            x, coordinates = _padded(x, -2, after=missing), _padded(coordinates, -2, after=missing)
        mask = attention.prepare_mask(segment_ids, chosen, cfg.dtype)
        x = layer_norm(cfg, "pre_ln")(sharding.by_example(x))
        x = self._run_layers(x, self._positions(coordinates), mask, chosen)
        y = layer_norm(cfg, "final_ln")(x[:, :length])
        if not self.summary:
            return None, y
        return dense(cfg, "cls_proj", cfg.hidden_size)(y[:, 0]), y[:, 1:]

    def _positions(self, coordinates: jax.Array) -> RotaryTable:
        cfg = self.config
        if cfg.parity and cfg.rotary == "published":
            return table(coordinates.astype(cfg.dtype), cfg.rotary_size, cfg.head_size, "parity")
        return table(coordinates.astype(jnp.float32), cfg.rotary_size, cfg.head_size, cfg.rotary)

    def _run_layers(self, x: jax.Array, positions: RotaryTable, mask: Mask | None, chosen: Implementation) -> jax.Array:
        layer_class = Layer
        if self.remat != "none":
            dots = jax.checkpoint_policies.save_only_these_names(OUTPUT_NAME)
            layer_class = nn.remat(
                Layer,
                policy=dots if self.remat == "dots" else None,
                prevent_cse=self.config.unroll_layers or not self.config.scan_layers,
            )
        if not self.config.scan_layers:
            for index in range(self.layers):
                x = layer_class(self.config, chosen, name=f"layer_{index:02d}")(x, positions, mask)
            return x

        def one_layer(layer: Layer, x: jax.Array, positions: RotaryTable, mask: Mask | None):
            return layer(x, positions, mask), None

        scan = nn.scan(
            one_layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType] - Flax annotates an int
            length=self.layers,
            unroll=self.layers if self.config.unroll_layers else 1,
        )
        return scan(layer_class(self.config, chosen, name=_SCANNED), x, positions, mask)[0]


def stack_layers(params: dict) -> dict:
    """Return the parameters of an unrolled model for one with `scan_layers`: each stack's layers joined."""
    if not isinstance(params, dict):
        return params
    layers = sorted(name for name in params if name.startswith("layer_"))
    rest = {name: stack_layers(value) for name, value in params.items() if name not in layers}
    if layers:
        rest[_SCANNED] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in layers))
    return rest


def unstack_layers(params: dict) -> dict:
    """Return the published parameter tree of a model with `scan_layers`; other trees are returned as they are."""
    if not isinstance(params, dict):
        return params
    rest = {name: unstack_layers(value) for name, value in params.items() if name != _SCANNED}
    if _SCANNED in params:
        count = len(jax.tree.leaves(params[_SCANNED])[0])
        for index in range(count):
            rest[f"layer_{index:02d}"] = jax.tree.map(lambda leaf, i=index: leaf[i], params[_SCANNED])
    return rest


def _padded(array: jax.Array, axis: int, before: int = 0, after: int = 0, value: int = 0) -> jax.Array:
    padding = [(0, 0)] * array.ndim
    padding[axis] = (before, after)
    return jnp.pad(array, padding, constant_values=value)
