"""The network of the published object filter: MobileNetV2 with 81 outputs (docs/spec/ingest.md 5.2).

Its weights are those of the published file, a state dict with torchvision's names; batch normalisation uses its running
statistics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from model.filters import torch_file
from shards.storage.errors import UserError

CLASSES = 81
FEATURES = 1280
HEIGHT, WIDTH = 82, 114
"""Of the pictures that it sees, cut from the middle of 90 by 120."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the three channels of a picture in [0, 1], which are normalised by them."""

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first block."""

_EPSILON = 1e-5
_PREFIX = "module."


class MobileNetError(UserError):
    """A file does not hold the weights of this network; the message says what differs."""


class _Unit(nn.Module):
    """Convolution, normalisation, and a ReLU that ends at 6 if `active`."""

    channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    padding: int | None = None
    active: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        pad = (self.kernel - 1) // 2 if self.padding is None else self.padding
        size, step = (self.kernel, self.kernel), (self.stride, self.stride)
        x = nn.Conv(
            self.channels, size, step, [(pad, pad)] * 2, feature_group_count=self.groups, use_bias=False, name="conv"
        )(x)
        x = nn.BatchNorm(use_running_average=True, epsilon=_EPSILON, name="norm")(x)
        return jnp.clip(x, 0, 6) if self.active else x


class _Block(nn.Module):
    """Widen, look around in each channel, narrow; added to the input where the shapes allow."""

    expansion: int
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.shape[-1] * self.expansion
        y = _Unit(wide, name="widen")(x) if self.expansion > 1 else x
        y = _Unit(wide, 3, self.stride, groups=wide, name="look")(y)
        y = _Unit(self.channels, active=False, name="narrow")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.channels else y


class MobileNetV2(nn.Module):
    """Pictures `float32 [n, 82, 114, 3]`, normalised -> features `[n, 1280]` and class scores `[n, 81]` in [0, 1]."""

    @nn.compact
    def __call__(self, pictures: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean of the last map, and the sigmoid of its classification."""
        x = _Unit(32, 3, padding=0, name="features_0")(pictures)
        number = 1
        for expansion, channels, blocks, stride in _STAGES:
            for block in range(blocks):
                x = _Block(expansion, channels, stride if block == 0 else 1, name=f"features_{number}")(x)
                number += 1
        x = _Unit(FEATURES, name=f"features_{number}")(x).mean(axis=(1, 2))
        return x, nn.sigmoid(nn.Dense(CLASSES, name="classifier")(x))


def load(path: str | Path) -> dict[str, Any]:
    """Return the variables of the network from the published `.pth.tar`.

    Raises `MobileNetError` naming a missing weight or one of another shape, such as another number of classes.
    """
    try:
        content = torch_file.load(path)
    except torch_file.TorchFileError as error:
        raise MobileNetError(str(error)) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise MobileNetError(f"{path} holds no state dict")
    state = {str(name).removeprefix(_PREFIX): value for name, value in state.items()}
    shapes = jax.eval_shape(MobileNetV2().init, jax.random.key(0), jnp.zeros((1, HEIGHT, WIDTH, 3)))
    loaded = [_weight(state, place, leaf.shape, path) for place, leaf in jax.tree_util.tree_leaves_with_path(shapes)]
    return jax.tree.unflatten(jax.tree.structure(shapes), loaded)


def normalise(pictures: np.ndarray) -> np.ndarray:
    """Return the network's input, `float32 [n, 82, 114, 3]`, of pictures `uint8 [n, 90, 120, 3]`."""
    top, left = (pictures.shape[1] - HEIGHT) // 2, (pictures.shape[2] - WIDTH) // 2
    middle = pictures[:, top : top + HEIGHT, left : left + WIDTH].astype(np.float32) / 255
    return (middle - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)


def torch_name(place: tuple[str, ...]) -> str:
    """Return the name in the state dict of a variable at `place`: collection, modules, leaf."""
    _, *modules, leaf = place
    if modules == ["classifier"]:
        return f"classifier.1.{'weight' if leaf == 'kernel' else 'bias'}"
    number = modules[0].removeprefix("features_")
    last = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}[leaf]
    if len(modules) == 2:
        return f"features.{number}.{0 if modules[1] == 'conv' else 1}.{last}"
    first = number == "1"
    norm = modules[2] == "norm"
    if modules[1] == "narrow":
        return f"features.{number}.conv.{(1 if first else 2) + norm}.{last}"
    return f"features.{number}.conv.{0 if first or modules[1] == 'widen' else 1}.{int(norm)}.{last}"


def _weight(state: dict[str, Any], place: tuple[Any, ...], shape: tuple[int, ...], path: str | Path) -> np.ndarray:
    name = torch_name(tuple(key.key for key in place))
    value = state.get(name)
    if not isinstance(value, np.ndarray):
        raise MobileNetError(f"{path} holds no weight {name!r}: it is not a MobileNetV2 with torchvision's names")
    if value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
    elif value.ndim == 2:
        value = value.T
    if value.shape != shape:
        raise MobileNetError(f"{name!r} of {path} has the shape {value.shape} instead of {shape}")
    if not np.isfinite(value).all():
        raise MobileNetError(f"{name!r} of {path} holds numbers that are not finite")
    return np.ascontiguousarray(value, np.float32)
