"""The transformer stack that every encoder is made of: attention, feed-forward layers and their scan or unrolling.

Masks are given as segment ids: a token attends to the tokens that carry its own id, and negative ids are padding. The
names of modules and parameters are those of the published checkpoints (spec model.md 6).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.config import ReserveConfig
from model.rotary import RotaryTable, table

LAYER_NORM_EPSILON = 1e-5
_MASKED = -1e10
_SCANNED = "layers"


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Normal numbers cut at two deviations of `min(18 / fan_in, 0.02) / sqrt(2)` (spec model.md 11)."""
    fan_in = 1
    for side in shape[:-1]:
        fan_in *= side
    scale = min(18 / fan_in, 0.02) / 2**0.5
    return jax.random.truncated_normal(key, -2, 2, shape, dtype) * jnp.asarray(scale, dtype)


def kernel_initializer(config: ReserveConfig) -> nn.initializers.Initializer:
    """How the dense layers of a new model are drawn; see `ReserveConfig.initialization`."""
    return kernel_init if config.initialization == "published" else nn.initializers.lecun_normal()


def gelu(x: jax.Array) -> jax.Array:
    """The sigmoid approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def layer_norm(config: ReserveConfig, name: str) -> nn.LayerNorm:
    """A layer norm with float32 statistics and an output in the model's dtype."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, name=name)


def attention_mask(segment_ids: jax.Array) -> jax.Array:
    """Who attends to whom, `bool [..., n, n]`, from segment ids `[..., n]`."""
    same = segment_ids[..., :, None] == segment_ids[..., None, :]
    return same & (segment_ids >= 0)[..., None, :]


def attention_bias(segment_ids: jax.Array, dtype: str) -> jax.Array:
    """What is added to scores, `[batch, 1, n, n]`: 0, or -1e10 where a token must not look; finite, so no NaN."""
    return jnp.where(attention_mask(segment_ids), 0, _MASKED).astype(dtype)[:, None]


def attention_backend(config: ReserveConfig, length: int, masked: bool, platform: str | None = None) -> str:
    """ "cudnn" (flash attention) on GPUs for what it can do, else "xla", and "products" on CPUs.

    cuDNN wants 16-bit numbers, heads of a multiple of 8 up to 128, and an even length where there is a mask. On CPUs
    the gradient of `jax.nn.dot_product_attention` adds a seventh to a small model's step, and plain products do not.
    """
    if config.attention != "auto":
        return config.attention
    platform = platform or jax.default_backend()
    fits = config.dtype == "bfloat16" and config.head_size % 8 == 0 and config.head_size <= 128
    if platform == "gpu" and fits and not (masked and length % 2):
        return "cudnn"
    return "products" if platform == "cpu" else "xla"


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None, config: ReserveConfig
) -> jax.Array:
    """Scaled dot-product attention over `[batch, n, heads, head]` with a bias `[batch, 1, n, n]`.

    Scores and softmax are float32, with `config.parity` in the model's dtype. A row that may attend to nothing attends
    to everything alike.
    """
    # Scaling the queries is cheaper than scaling the scores, and what the published model does.
    query = query / jnp.asarray(config.head_size**0.5, query.dtype)
    backend = "products" if config.parity else attention_backend(config, query.shape[1], bias is not None)
    if backend != "products":
        return jax.nn.dot_product_attention(query, key, value, bias=bias, scale=1.0, implementation=backend)
    score_dtype = query.dtype if config.parity else jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=score_dtype)
    if bias is not None:
        scores = scores + bias
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


class Attention(nn.Module):
    """Self-attention with one fused projection and positions on queries and keys."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, x: jax.Array, positions: RotaryTable, bias: jax.Array | None) -> jax.Array:
        """`x [batch, n, hidden]` mixed over n."""
        cfg = self.config
        qkv = nn.DenseGeneral(
            (3 * cfg.heads, cfg.head_size), dtype=cfg.dtype, kernel_init=kernel_initializer(cfg), name="qkv"
        )(x)
        query, key, value = jnp.split(qkv, 3, axis=-2)
        mixed = attend(positions.apply(query), positions.apply(key), value, bias, cfg)
        return nn.DenseGeneral(
            cfg.hidden_size,
            axis=(-2, -1),
            use_bias=False,
            dtype=cfg.dtype,
            kernel_init=kernel_initializer(cfg),
            name="attn_proj",
        )(mixed)


class FeedForward(nn.Module):
    """The position-wise network, four times as wide inside."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x [..., hidden]` to the same shape."""
        cfg = self.config
        inner = nn.Dense(
            4 * cfg.hidden_size, dtype=cfg.dtype, kernel_init=kernel_initializer(cfg), name="intermediate"
        )(x)
        return nn.Dense(
            cfg.hidden_size, use_bias=False, dtype=cfg.dtype, kernel_init=kernel_initializer(cfg), name="out"
        )(gelu(inner))


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, x: jax.Array, positions: RotaryTable, bias: jax.Array | None) -> jax.Array:
        """`x [batch, n, hidden]` to the same shape."""
        attention = Attention(self.config, name="attention_layer")
        x = x + attention(layer_norm(self.config, "pre_attn_ln")(x), positions, bias)
        return x + FeedForward(self.config, name="mlp_layer")(layer_norm(self.config, "pre_mlp_ln")(x))


class Transformer(nn.Module):
    """A stack of layers, with or without a learned summary token in front (spec model.md 6.5).

    `layers` and `remat` differ between the stacks of one model. With `config.scan_layers` the layers' parameters are
    stacked under "layers"; see `stack_layers`.
    """

    config: ReserveConfig
    layers: int
    remat: str = "none"
    summary: bool = True

    @nn.compact
    def __call__(
        self, x: jax.Array, coordinates: jax.Array, segment_ids: jax.Array | None = None
    ) -> tuple[jax.Array | None, jax.Array]:
        """Encode `x [batch, n, hidden]` at `coordinates [(batch,) n, axes]`; no segment ids means no mask.

        Returns the projected summary `[batch, hidden]` (None without a summary token) and the sequence
        `[batch, n, hidden]`. The summary token has coordinate 0 and segment id 0.
        """
        cfg = self.config
        x = x.astype(cfg.dtype)
        if self.summary:
            token = self.param("cls", nn.initializers.normal(0.02), (cfg.hidden_size,))
            token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, cfg.hidden_size))
            x = jnp.concatenate([token, x], axis=1)
            coordinates = _with_zero_in_front(coordinates, axis=-2)
            segment_ids = None if segment_ids is None else _with_zero_in_front(segment_ids, axis=-1)
        positions = self._positions(coordinates)
        bias = None if segment_ids is None else attention_bias(segment_ids, cfg.dtype)
        x = layer_norm(cfg, "pre_ln")(x)
        x = self._run_layers(x, positions, bias)
        y = layer_norm(cfg, "final_ln")(x)
        if not self.summary:
            return None, y
        projection = nn.Dense(cfg.hidden_size, dtype=cfg.dtype, kernel_init=kernel_initializer(cfg), name="cls_proj")
        return projection(y[:, 0]), y[:, 1:]

    def _positions(self, coordinates: jax.Array) -> RotaryTable:
        cfg = self.config
        if cfg.parity and cfg.rotary == "published":
            return table(coordinates.astype(cfg.dtype), cfg.rotary_size, cfg.head_size, "parity")
        return table(coordinates.astype(jnp.float32), cfg.rotary_size, cfg.head_size, cfg.rotary)

    def _run_layers(self, x: jax.Array, positions: RotaryTable, bias: jax.Array | None) -> jax.Array:
        layer_class = Layer
        if self.remat != "none":
            dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            layer_class = nn.remat(
                Layer, policy=dots if self.remat == "dots" else None, prevent_cse=not self.config.scan_layers
            )
        if not self.config.scan_layers:
            for index in range(self.layers):
                x = layer_class(self.config, name=f"layer_{index:02d}")(x, positions, bias)
            return x

        def one_layer(layer: Layer, x: jax.Array, positions: RotaryTable, bias: jax.Array | None):
            return layer(x, positions, bias), None

        scan = nn.scan(
            one_layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.layers,
        )
        return scan(layer_class(self.config, name=_SCANNED), x, positions, bias)[0]


def stack_layers(params: dict) -> dict:
    """The parameters of an unrolled model as a model with `scan_layers` wants them: each stack's layers joined."""
    if not isinstance(params, dict):
        return params
    layers = sorted(name for name in params if name.startswith("layer_"))
    rest = {name: stack_layers(value) for name, value in params.items() if name not in layers}
    if layers:
        rest[_SCANNED] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in layers))
    return rest


def unstack_layers(params: dict) -> dict:
    """The published parameter tree of a model with `scan_layers`; other trees are returned as they are."""
    if not isinstance(params, dict):
        return params
    rest = {name: unstack_layers(value) for name, value in params.items() if name != _SCANNED}
    if _SCANNED in params:
        count = len(jax.tree.leaves(params[_SCANNED])[0])
        for index in range(count):
            rest[f"layer_{index:02d}"] = jax.tree.map(lambda leaf, i=index: leaf[i], params[_SCANNED])
    return rest


def _with_zero_in_front(array: jax.Array, axis: int) -> jax.Array:
    padding = [(0, 0)] * array.ndim
    padding[axis] = (1, 0)
    return jnp.pad(array, padding)
