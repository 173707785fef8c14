"""Published checkpoints: find, download, verify and load them, use the model, and write files the old code can read.

A file is believed only after its whole parameter tree agrees with the model it is loaded into; what differs is named.
The format is Flax msgpack with float16 weights (spec training.md 3, model.md 14).
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors, serialization, traverse_util

from model import checkpoint_values
from model.checkpoint_values import ValuesError
from model.config import BASE, DEFAULT_GRID, LARGE, ConfigError, ReserveConfig
from model.reserve import InputError, MerlotReserve, parameter_shapes
from model.transformer import stack_layers, unstack_layers
from shards import filesystem, tokenizer_file
from shards.errors import UserError
from shards.fetch import TOKENIZER, RemoteFile, fetch
from shards.tokens import AUDIOSPAN, PADDING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from model.inference import Answers, VideoInputs

GRID_NAME = "model.json"
MAX_GRID = 1024
"""Rows or columns of patches that a file beside weights may state."""

MAX_LAYERS = 256
"""Layers of a stack whose number is read off a file."""

LOGIT_SCALE = 100.0
"""Cosines of unit vectors times this are logits, the cap of the learned temperature (spec model.md 13)."""

_BUCKET = "gs://merlotreserve"
_FOLDERS = {"vcr": "vcr_ckpts", "tvqa": "tvqa_ckpts"}
_SIZES = {"base": BASE, "large": LARGE}
_LOG = logging.getLogger(__name__)

DROPPED_BY_TASK = {"vcr": ("audio_encoder", "head", "span_encoder"), "tvqa": ("head", "span_encoder")}
"""Parts a finetuned checkpoint goes without; it has `proj` instead (spec model.md 12.3)."""

Progress = Callable[[int, int | None], None]


class CheckpointError(ValueError):
    """A file that is no usable checkpoint for this model; the message says what is wrong with it."""


class WeightsNotFiniteError(UserError):
    """Weights are NaN or infinite, so nothing that they answer counts; the message names the parameters."""


@dataclass(frozen=True)
class Pretrained:
    """A model with its parameters: the published methods, compiled once for each shape of inputs.

    `params` are float32, in the tree of `config`. `tokenizer_file` is the path or `gs://` address of the vocabulary
    the weights were made with; None means the published one, fetched into `cache_dir` when it is first needed.
    """

    params: dict
    config: ReserveConfig
    tokenizer_file: str | None = None
    cache_dir: Path | None = None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of these weights.

        Raises `FetchError` if it must be downloaded and cannot, `TokenizerError` if its file is damaged.
        """
        file = self.tokenizer_file or str(fetch(TOKENIZER, self.cache_dir))
        return tokenizer_file.parse(tokenizer_file.read(file), file)

    @functools.cached_property
    def module(self) -> MerlotReserve:
        """The Flax module, for `module.apply({"params": params}, ..., method=...)`."""
        return MerlotReserve(self.config)

    def embed_video(self, images, audio_clips, tokens, subseg_idxs) -> jax.Array:
        """Unit vectors `[n, hidden]`; see `MerlotReserve.embed_video`. Sound that no token asks for is not encoded."""
        tokens = self._checked(tokens)
        return self._run("embed_video", images, _needed(audio_clips, tokens), tokens, subseg_idxs)

    def batch_embed_video(self, images, audio_clips, tokens, subseg_idxs) -> jax.Array:
        """Unit vectors `[batch, n, hidden]`; see `MerlotReserve.batch_embed_video`."""
        tokens = self._checked(tokens)
        return self._run("batch_embed_video", images, _needed(audio_clips, tokens), tokens, subseg_idxs)

    def embed_text_spans_only(self, text_spans) -> jax.Array:
        """Unit vectors `[batch, hidden]` of short texts `[batch, n]` padded with 0."""
        return self._run("embed_text_spans_only", self._checked(text_spans))

    def embed_audio_only(self, audio_clips) -> jax.Array:
        """Unit vectors `[..., hidden]` of spectrograms."""
        return self._run("embed_audio_only", audio_clips)

    def embed_images_only(self, imgs) -> jax.Array:
        """Unit vectors `[..., hidden]` of images as patches."""
        return self._run("embed_images_only", imgs)

    def get_imgseq_only(self, imgs) -> jax.Array:
        """Pooled tokens of images as patches."""
        return self._run("get_imgseq_only", imgs)

    def get_audioseq_only(self, audio_clips) -> jax.Array:
        """Pooled tokens of spectrograms."""
        return self._run("get_audioseq_only", audio_clips)

    def embed_singleimg_with_multiimg_prompt(self, images_prompt, images, tokens, subseg_idxs) -> jax.Array:
        """Unit vectors `[n, hidden]` with pooled images in front of others."""
        arrays = (images_prompt, images, self._checked(tokens), subseg_idxs)
        return self._run("embed_singleimg_with_multiimg_prompt", *arrays)

    def embed_preencoded_noaudio(self, images_enc, tokens, subseg_idxs) -> jax.Array:
        """Unit vectors `[n, hidden]` beside pooled images."""
        return self._run("embed_preencoded_noaudio", images_enc, self._checked(tokens), subseg_idxs)

    def embed_preencoded_audio(self, images_enc, audio_enc, tokens, subseg_idxs, audio_pointers) -> jax.Array:
        """Unit vectors `[n, hidden]` beside pooled images and sounds."""
        arrays = (images_enc, audio_enc, self._checked(tokens), subseg_idxs, audio_pointers)
        return self._run("embed_preencoded_audio", *arrays)

    def batch_embed_preencoded(self, images_enc, audio_enc, tokens, subseg_idxs) -> jax.Array:
        """Unit vectors `[batch, n, hidden]` beside pooled images and sounds; see `MerlotReserve`."""
        tokens = self._checked(tokens)
        return self._run("batch_embed_preencoded", images_enc, _needed(audio_enc, tokens), tokens, subseg_idxs)

    def prepare_multimodal_inputs(self, tokens, **arguments) -> dict[str, jax.Array]:
        """One joint sequence from its parts; see `MerlotReserve.assemble`."""
        variables = {"params": self.params}
        return self.module.apply(variables, self._checked(tokens), **arguments, method="prepare_multimodal_inputs")

    def get_label_space(self, options: Sequence[str]) -> jax.Array:
        """Unit vectors `[options, hidden]` of answer texts; texts over `span_length` tokens are cut with a warning."""
        if not options:
            raise InputError("there are no options; give at least one text")
        size = self.config.span_length
        spans = np.full((len(options), size), PADDING, np.int32)
        for row, option in zip(spans, options, strict=True):
            ids = self.tokenizer.encode(option, add_special_tokens=False).ids
            if len(ids) > size:
                warnings.warn(f"option {option!r} has {len(ids)} tokens and is cut to {size}", stacklevel=2)
            row[: len(ids[:size])] = ids[:size]
        return self.embed_text_spans_only(spans)

    def answer(self, video: VideoInputs, prompt: str, options: Sequence[str], **choices) -> Answers:
        """Which option fills the `<|MASK|>` of a prompt about a video; see `model.inference.answer`."""
        # Inference is built on this module, which only offers it under the shorter name.
        from model import inference

        return inference.answer(self, video, prompt, options, **choices)

    @functools.cached_property
    def digest(self) -> str:
        """What answers to texts depend on: the parameters that embed them and the type they are computed in."""
        parts = {name: self.params[name] for name in ("token_encoder", "span_encoder") if name in self.params}
        state = hashlib.sha256(self.config.dtype.encode())
        for path, leaf in sorted(traverse_util.flatten_dict(parts, sep="/").items()):
            state.update(path.encode())
            state.update(np.asarray(leaf).tobytes())
        return state.hexdigest()

    @functools.cached_property
    def _compiled(self) -> dict[str, Callable]:
        return {}

    def _run(self, method: str, *arrays) -> jax.Array:
        if method not in self._compiled:
            apply = self.module.apply
            self._compiled[method] = jax.jit(lambda params, *args: apply({"params": params}, *args, method=method))
        try:
            return self._compiled[method](self.params, *arrays)
        except errors.ScopeParamNotFoundError as error:
            have = ", ".join(sorted(self.params))
            raise CheckpointError(f"{method} needs more than this finetuned checkpoint has ({have})") from error

    def _checked(self, tokens) -> np.ndarray:
        tokens = np.asarray(tokens)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.config.vocabulary_size:
            wrong = tokens.min() if tokens.min() < 0 else tokens.max()
            raise InputError(f"token {wrong} is outside the vocabulary of {self.config.vocabulary_size} ids")
        return tokens


def load(
    name_or_path: str | Path,
    grid: tuple[int, int] | None = DEFAULT_GRID,
    config: ReserveConfig | None = None,
    cache_dir: str | Path | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """A published model by name, or a checkpoint by path or `gs://` or `https://` address.

    Names are `base`, `large`, `vcr_finetune_base` and so on. `grid` picks the checkpoint adapted to it; None takes the
    one that is written beside the checkpoint, else the default. A `config` decides everything, grid and dtype
    included, and otherwise the sizes are read off the file. Parameters become float32; `dtype` is that of the
    computation, float32 unless told. A folder, also one in a bucket, means its highest `ckpt_STEP`. What comes from the
    web is kept in `cache_dir`, continued if broken, and reported to `progress(done, total)` in bytes. Raises
    `CheckpointError`, `ConfigError`, `FetchError` or `StorageError`.
    """
    name = str(name_or_path)
    if grid is None:
        grid = config.grid if config else _grid_beside(name) or DEFAULT_GRID
    if config is None:
        image_grid = BASE.with_grid(grid).grid
    elif tuple(grid) not in (DEFAULT_GRID, config.grid):
        raise ConfigError(f"grid {tuple(grid)} disagrees with the grid {config.grid} of config; give only one")
    else:
        image_grid = config.grid
    folder = None if cache_dir is None else Path(cache_dir)
    remote = remote_file(name, image_grid)
    if remote:
        data = _fetched(remote, folder, progress or _logged(remote.name))
        place = remote.name
    else:
        place = _file_at(name)
        data = _read(place)
    try:
        params = decode(data, place)
        config = _config_of(params, place, image_grid, dtype) if config is None else config
        verify(params, config, place)
    except CheckpointError as error:
        if remote:
            _forget(remote, folder)
            raise CheckpointError(f"{error}; the download was removed from the cache") from None
        raise
    if dtype is not None:
        config = replace(config, dtype=dtype)
    params = stack_layers(params) if config.scan_layers else params
    beside = filesystem.join(filesystem.folder_of(place), "tokenizer.json")
    tokenizer = beside if not remote and filesystem.exists(beside) else None
    return Pretrained(jax.device_put(params), config, tokenizer, folder)


def remote_file(name: str, grid: tuple[int, int]) -> RemoteFile | None:
    """Where a published name or a web address is on the net; None for a path, on a disk or in a bucket."""
    if name in _SIZES:
        file = name if tuple(grid) == BASE.grid else f"{name}_resadapt"
        return RemoteFile(file, f"{_BUCKET}/ckpts/{file}")
    if match := re.fullmatch(r"(vcr|tvqa)_finetune_(base|large)", name):
        return RemoteFile(name, f"{_BUCKET}/{_FOLDERS[match[1]]}/{name}")
    if name.startswith(("https://", "http://")):
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return RemoteFile(f"{digest}-{name.rstrip('/').rsplit('/', 1)[-1]}", name)
    return None


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
    """Whether a leaf is an array of real numbers whose names are texts."""
    named = all(isinstance(part, str) for part in path)
    return named and isinstance(leaf, np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)


def verify(params: Mapping, config: ReserveConfig, place: str) -> None:
    """Raise `CheckpointError` unless a published tree has the paths and shapes of `config`, finetuned or not."""
    have = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    shapes = parameter_shapes(replace(config, scan_layers=False))
    if "proj" in params:
        task = "tvqa" if "audio_encoder" in params else "vcr"
        shapes = {name: tree for name, tree in shapes.items() if name not in DROPPED_BY_TASK[task]}
        shapes["proj"] = {"kernel": jax.ShapeDtypeStruct((config.hidden_size, 1), np.float32)}
    want = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
    missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    misshaped = [
        f"{path} {have[path]} instead of {want[path]}"
        for path in sorted(want.keys() & have.keys())
        if have[path] != want[path]
    ]
    found = (("missing", missing), ("unknown", extra), ("misshaped", misshaped))
    if faults := [f"{len(names)} {kind}: {_some(names)}" for kind, names in found if names]:
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


def _grid_beside(name: str) -> tuple[int, int] | None:
    if remote_file(name, DEFAULT_GRID):
        return None
    folder = name if steps_in(name) else filesystem.folder_of(name)
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


def _config_of(params: Mapping, place: str, grid: tuple[int, int], dtype: str | None) -> ReserveConfig:
    """The sizes of a model read off its parameters; what a finetuned file lacks stays as in the base model."""

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


def _fetched(remote: RemoteFile, folder: Path | None, progress: Progress) -> bytes:
    return fetch(remote, folder, progress).read_bytes()


def _forget(remote: RemoteFile, folder: Path | None) -> None:
    """Drop a download that proved to be no checkpoint, so that the next call does not trust it."""
    path = fetch(remote, folder)
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
    path.unlink()


def _logged(name: str) -> Progress:
    """Report a download to the log at every tenth of it."""
    reported = -1

    def progress(done: int, total: int | None) -> None:
        nonlocal reported
        tenth = 10 * done // total if total else done >> 28
        if tenth > reported:
            reported = tenth
            _LOG.info("downloading %s: %d of %s MiB", name, done >> 20, total >> 20 if total else "?")

    return progress


def _file_at(name: str) -> str:
    """The checkpoint at a path: the file itself, or the newest in a folder."""
    if steps := steps_in(name):
        return steps[max(steps)]
    if not filesystem.exists(name):
        known = ", ".join([*_SIZES, "vcr_finetune_base", "tvqa_finetune_base"])
        raise CheckpointError(f"{name!r} is no file and no published name; published are {known} and their large forms")
    return name


def _read(place: str) -> bytes:
    try:
        return filesystem.read_bytes(place)
    except filesystem.StorageError as error:
        raise CheckpointError(f"{place!r} has no file ckpt_STEP, and it is no checkpoint itself: {error}") from None


def steps_in(folder: str) -> dict[int, str]:
    """Find the files `ckpt_STEP` in a folder, by their step."""
    files = {path.rpartition("/ckpt_")[2]: path for path in filesystem.list_files(folder)}
    return {int(step): path for step, path in files.items() if step.isdigit()}


def _needed(audio_clips, tokens: np.ndarray):
    """The clips if any token asks for them, else None."""
    if not (tokens == AUDIOSPAN).any():
        return None
    if audio_clips is None:
        raise InputError("tokens ask for sound, but audio_clips is None; give the clips or no AUDIOSPAN tokens")
    return audio_clips


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
