"""Files as `torch.save` writes them, made without torch: a zip of a pickle that names torch's functions, and of numbers.

`weights` are the same on every machine: the golden outputs of the network were measured by torch with them.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
import zlib
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np

from model.filters.mobilenet import HEIGHT, WIDTH, MobileNetV2, torch_name


def weights(classes: int = 81) -> dict[str, np.ndarray]:
    """A state dict of the network by torchvision's names, drawn by name."""
    shapes = jax.eval_shape(MobileNetV2().init, jax.random.key(0), jnp.zeros((1, HEIGHT, WIDTH, 3)))
    state = {}
    for place, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name, shape = torch_name(tuple(key.key for key in place)), leaf.shape
        if name.startswith("classifier"):
            shape = (*shape[:-1], classes)
        shape = {4: lambda s: (s[3], s[2], s[0], s[1]), 2: lambda s: s[::-1]}.get(len(shape), lambda s: s)(shape)
        state[name] = _drawn(name, shape)
    return state


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("running_mean"):
        return rng.normal(0, 0.1, shape).astype(np.float32)
    if len(shape) == 1:
        return (rng.normal(0, 0.1, shape) + name.endswith("weight")).astype(np.float32)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)


def thumbnails() -> np.ndarray:
    """The two pictures of the golden outputs."""
    small = np.random.default_rng(81).integers(0, 256, (2, 9, 12, 3), np.uint8)
    return small.repeat(10, 1).repeat(10, 2)


class _Tensor:
    def __init__(self, key: int, array: np.ndarray):
        self.key, self.array = key, array

    def __reduce__(self):
        steps = tuple(step // self.array.itemsize for step in self.array.strides)
        arguments = (_Storage(self.key, self.array.size), 0, self.array.shape, steps, False, OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


class _Storage:
    def __init__(self, key: int, count: int):
        self.key, self.count = key, count


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            return "storage", sys.modules["torch"].FloatStorage, str(obj.key), "cpu", obj.count
        return None


def save(path, state: dict[str, np.ndarray], monkeypatch) -> None:
    """Write `{"epoch": 7, "state_dict": ...}` with the names under `module.`."""
    torch, functions = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch", "__qualname__": "FloatStorage"})

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    functions._rebuild_tensor_v2 = _rebuild_tensor_v2
    arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
    held = OrderedDict((f"module.{name}", _Tensor(i, array)) for i, (name, array) in enumerate(arrays.items()))
    buffer = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", functions)
        _Pickler(buffer, 2).dump({"epoch": 7, "state_dict": held})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", buffer.getvalue())
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"model/data/{i}", array.tobytes())
