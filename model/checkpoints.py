"""The published checkpoint format: Flax msgpack files with float16 weights.

See docs/spec/training.md 3 and docs/spec/model.md 14. Decode the bytes of a file, verify its parameter tree against a
model, read sizes off it, and export weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, traverse_util

from model import checkpoint_values
from model.checkpoint_values import ValuesError
from model.config import BASE, ReserveConfig
from model.reserve import parameter_shapes
from model.transformer import unstack_layers
from shards.storage import filesystem
from shards.storage.errors import UserError

GRID_NAME = "model.json"
MAX_GRID = 1024
"""Rows or columns of patches that a file beside weights may state."""

MAX_LAYERS = 256
"""Layers of a stack whose number is read off a file."""

DROPPED_BY_TASK = {"vcr": ("audio_encoder", "head", "span_encoder"), "tvqa": ("head", "span_encoder")}
"""Parts that a finetuned checkpoint lacks; it has `proj` instead (docs/spec/model.md 12.3)."""


class CheckpointError(ValueError):
    """A file is not a usable checkpoint for this model; the message says what is wrong with it."""


class WeightsNotFiniteError(UserError):
    """Weights are NaN or infinite, so their answers are meaningless; the message names the parameters."""


def decode(data: bytes, place: str) -> dict:
    """Return the parameters in the bytes of a checkpoint, float32.

    Raises `CheckpointError` naming `place`, and `WeightsNotFiniteError`.
    """
    if data.lstrip()[:1] == b"<":
        raise CheckpointError(f"{place} is an HTML or XML page, probably an error message of a server: {data[:80]!r}")
    try:
        state = checkpoint_values.loads(data)
    except ValuesError as error:
        raise CheckpointError(f"{place} ({len(data)} bytes) is truncated or no checkpoint: {error}") from None
    if not isinstance(state, dict) or not isinstance(state.get("params"), dict):
        raise CheckpointError(f"{place} has no 'params'; it is not a checkpoint of this model")
    leaves = traverse_util.flatten_dict(state["params"])
    if wrong := ["/".join(map(str, path)) for path, leaf in leaves.items() if not _is_parameter(path, leaf)]:
        raise CheckpointError(f"{place}: {_some(wrong)} of 'params' is not an array of numbers")
    wide = {path: np.asarray(leaf, np.float32) for path, leaf in leaves.items()}
    if bad := ["/".join(path) for path, leaf in wide.items() if not np.isfinite(leaf).all()]:
        raise WeightsNotFiniteError(f"{place} has weights that are not finite, in {_some(bad)}; take an earlier one")
    return traverse_util.unflatten_dict(wide)


def _is_parameter(path: tuple, leaf: object) -> bool:
    """Return whether a leaf is an array of real numbers whose names are texts."""
    named = all(isinstance(part, str) for part in path)
    return named and isinstance(leaf, np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _shapes(tree: Mapping) -> dict[str, tuple[int, ...]]:
    leaves: Any = traverse_util.flatten_dict(tree, sep="/")
    return {path: leaf.shape for path, leaf in leaves.items()}


def verify(params: Mapping, config: ReserveConfig, place: str) -> None:
    """Raise `CheckpointError` unless a published tree has the paths and shapes of `config`, finetuned or not."""
    have = _shapes(params)
    shapes = parameter_shapes(replace(config, scan_layers=False))
    if "proj" in params:
        task = "tvqa" if "audio_encoder" in params else "vcr"
        shapes = {name: tree for name, tree in shapes.items() if name not in DROPPED_BY_TASK[task]}
        shapes["proj"] = {"kernel": jax.ShapeDtypeStruct((config.hidden_size, 1), np.float32)}
    want = _shapes(shapes)
    missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    misshaped = [
        f"{path} {have[path]} instead of {want[path]}"
        for path in sorted(want.keys() & have.keys())
        if have[path] != want[path]
    ]
    differences = (("missing", missing), ("unknown", extra), ("misshaped", misshaped))
    if faults := [f"{len(names)} {kind}: {_some(names)}" for kind, names in differences if names]:
        raise CheckpointError(f"{place} does not fit the model; parameters " + "; ".join(faults))


def export(params: Mapping, path: str | Path, step: int = 0, dtype: str = "float16") -> None:
    """Write parameters, of a scanned model or not, as a checkpoint the published code can load.

    Float16 is its format; what `load` read from such a file is written back bit for bit. `dtype="float32"` keeps all
    bits of any weights. Raises `WeightsNotFiniteError`, and `CheckpointError` for weights that float16 cannot hold.
    """
    leaves = traverse_util.flatten_dict(unstack_layers(dict(params)), sep="/")
    written = {}
    for name, leaf in leaves.items():
        wide = np.asarray(leaf, np.float32)
        with np.errstate(over="ignore"):
            written[name] = wide.astype(dtype)
        if not np.isfinite(wide).all():
            raise WeightsNotFiniteError(f"{name} has values that are not finite, so nothing is written; train it again")
        if not np.isfinite(written[name]).all():
            largest = np.abs(wide).max()
            raise CheckpointError(f"{name} has values up to {largest:.4g}, too large for {dtype}; use float32")
    state = {"step": step, "params": traverse_util.unflatten_dict(written, sep="/"), "opt_state": None}
    filesystem.write_bytes(str(path), serialization.msgpack_serialize(state))


def write_grid(folder: str, config: ReserveConfig) -> None:
    """Write the image grid of exported weights beside them; the parameters themselves do not depend on it."""
    filesystem.write_bytes(filesystem.join(folder, GRID_NAME), (json.dumps({"grid": config.grid}) + "\n").encode())


def read_grid(folder: str) -> tuple[int, int] | None:
    """Read the image grid that `write_grid` stored in a folder; None without one. Raises `CheckpointError`."""
    path = filesystem.join(folder, GRID_NAME)
    if not filesystem.exists(path):
        return None
    try:
        rows, columns = json.loads(filesystem.read_bytes(path))["grid"]
        if not all(type(side) is int and 0 < side <= MAX_GRID for side in (rows, columns)):
            raise ValueError(f"the grid is {rows!r} by {columns!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); give the grid, or write it again") from None
    return rows, columns


def config_of(params: Mapping, place: str, grid: tuple[int, int], dtype: str | None) -> ReserveConfig:
    """Read the sizes of a model off its parameters; what a finetuned file lacks stays as in the base model.

    Raises `CheckpointError` naming `place`.
    """

    def layers(*path: str) -> int | None:
        tree = params
        for name in path:
            tree = tree.get(name, {}) if isinstance(tree, dict) else {}
        count = sum(name.startswith("layer_") for name in tree) if isinstance(tree, dict) else 0
        if count > MAX_LAYERS:
            raise CheckpointError(f"{place} has {count} layers in {'/'.join(path)}; at most {MAX_LAYERS} are read")
        return count or None

    try:
        words, hidden = params["token_encoder"]["Embed_0"]["embedding"].shape
        head = params["joint_transformer"]["layer_00"]["attention_layer"]["qkv"]["kernel"].shape[-1]
        patch_values = params["vision_encoder"]["embedding"]["kernel"].shape[0]
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{place} is not a checkpoint of this model: it has no usable {error}") from error
    if not all((words, hidden, head, patch_values // 3)):
        stated = f"{words}, {hidden}, {head} and {patch_values}"
        raise CheckpointError(f"{place} is not a checkpoint of this model: its sizes are {stated}")
    sizes = {
        "vocabulary_size": words,
        "hidden_size": hidden,
        "head_size": head,
        "patch_size": math.isqrt(patch_values // 3),
        "vision_layers": layers("vision_encoder", "transformer"),
        "audio_layers": layers("audio_encoder", "transformer"),
        "span_layers": layers("span_encoder", "transformer"),
        "joint_layers": layers("joint_transformer"),
        "dtype": dtype or "float32",
    }
    return replace(BASE, **{name: size for name, size in sizes.items() if size is not None}).with_grid(grid)


def steps_in(folder: str) -> dict[int, str]:
    """Find the files `ckpt_STEP` in a folder, by their step."""
    files = {path.rpartition("/ckpt_")[2]: path for path in filesystem.list_files(folder)}
    return {int(step): path for step, path in files.items() if step.isdigit()}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
