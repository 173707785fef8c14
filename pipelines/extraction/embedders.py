"""Who sees pictures for the visual filters, by name.

`perceptual` looks at colours and needs no weights; a `.pth.tar` file is the published object filter; an `.onnx` file is
any encoder of pictures; `reserve=CHECKPOINT` is our own one; `package.module:factory` is a call that gives one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ingest.config import NO_EMBEDDER, PERCEPTUAL
from ingest.similarity import Embed, Look, perceptual
from shards.storage.errors import UserError

_RESERVE = "reserve="
_THUMBNAIL = (120, 90)


class EmbedderError(UserError):
    """An embedder cannot be had; the message says which and what to do."""


@functools.lru_cache(maxsize=2)
def load(name: str) -> Embed | None:
    """The embedder of this name, `None` for `none`. Raises `EmbedderError`, or what loading its weights raises."""
    if name == NO_EMBEDDER:
        return None
    if name == PERCEPTUAL:
        return perceptual
    if name.startswith(_RESERVE):
        return _reserve(name.removeprefix(_RESERVE))
    if name.endswith((".pth.tar", ".pth", ".onnx")) and not Path(name).is_file():
        raise EmbedderError(f"there is no file {name!r}")
    if name.endswith((".pth.tar", ".pth")):
        return _mobilenet(name)
    if name.endswith(".onnx"):
        return _onnx(name)
    if ":" in name:
        return _entry_point(name)
    raise EmbedderError(
        f"--embedder {name!r} is none of perceptual, none, reserve=CHECKPOINT, FILE.pth.tar, FILE.onnx, module:factory"
    )


def _thumbnails(pictures: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """`uint8 [n, height, width, 3]` of pictures of any sizes; `size` is (width, height)."""
    return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BILINEAR)) for p in pictures])


def _mobilenet(path: str) -> Embed:
    import jax

    from model.filters import mobilenet

    variables = mobilenet.load(path)
    network = jax.jit(mobilenet.MobileNetV2().apply)

    def embed(pictures: Sequence[np.ndarray]) -> Look:
        features, objects = network(variables, mobilenet.normalise(_thumbnails(pictures, _THUMBNAIL)))
        return Look(np.asarray(features), np.asarray(objects))

    return embed


def _reserve(checkpoint: str) -> Embed:
    """The vision encoder of a checkpoint: its vector of the whole picture."""
    from model import published
    from model.checkpoint_location import locate
    from model.checkpoints import CheckpointError

    # Its compiled kernels cost a decoder 70 MB, which others should not pay.
    from shards.arrays import images

    try:
        reserve = published.load(locate(checkpoint).path)
    except CheckpointError as error:
        raise EmbedderError(f"--embedder reserve={checkpoint}: {error}") from None
    grid, patch = reserve.config.grid, reserve.config.patch_size

    def embed(pictures: Sequence[np.ndarray]) -> Look:
        out = np.zeros((len(pictures), reserve.config.patches, reserve.config.patch_values), np.float32)
        for picture, patches in zip(pictures, out, strict=True):
            placement = images.place(*picture.shape[:2], (grid[0] * patch, grid[1] * patch), None, None)
            images.write_patches(picture, placement, grid, patch, patches)
        return Look(np.asarray(reserve.embed_images_only(out), np.float32))

    return embed


def _onnx(path: str) -> Embed:
    """A network of one input `float32 [n, 3, height, width]` in [0, 1]; its first output are the features.

    A second output, if there is one, are class scores in [0, 1].
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise EmbedderError("the package onnxruntime is missing; install the extra [asr], which brings it")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The library raises its own untyped exceptions for every kind of bad file.
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001
        raise EmbedderError(f"{path!r} is not an ONNX network: {str(error)[:160]}") from None
    (given,) = session.get_inputs()
    _, channels, height, width = given.shape
    if channels != 3 or not isinstance(height, int) or not isinstance(width, int):
        raise EmbedderError(f"{path!r} takes {given.shape}; it must take [n, 3, height, width] of known size")

    def embed(pictures: Sequence[np.ndarray]) -> Look:
        seen = _thumbnails(pictures, (width, height)).astype(np.float32).transpose(0, 3, 1, 2) / 255
        features, *more = session.run(None, {given.name: seen})
        return Look(features.reshape(len(seen), -1), more[0] if more else None)

    return embed


def _entry_point(name: str) -> Embed:
    module, _, attribute = name.partition(":")
    try:
        factory: Callable[[], Embed] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EmbedderError(f"--embedder {name!r} cannot be loaded: {error}") from None
    return factory()
