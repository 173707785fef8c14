"""The image embedders of the visual filters, by name.

`perceptual` compares colours and needs no weights; a `.pth.tar` file is the published object filter; an `.onnx` file is
any image encoder; `reserve=CHECKPOINT` is the vision encoder of a checkpoint; `package.module:factory` is a function
that returns an embedder.
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
    """An embedder cannot be loaded; the message names it and says what to do."""


@functools.lru_cache(maxsize=2)
def load(name: str) -> Embed | None:
    """Return the embedder of this name, `None` for `none`. Raises `EmbedderError`, or the error of loading weights."""
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
        f"--embedder {name!r} is not one of perceptual, none, reserve=CHECKPOINT, FILE.pth.tar, FILE.onnx,"
        " module:factory"
    )


def _thumbnails(pictures: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return images of any sizes resized to `size`, (width, height), as `uint8 [n, height, width, 3]`."""
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
    """Return the vision encoder of a checkpoint, which embeds the whole image as one vector."""
    from model import published
    from model.checkpoint_location import locate
    from model.checkpoints import CheckpointError

    # Its compiled kernels use 70 MB, which other decoders do not need.
    from shards.arrays import images

    try:
        reserve = published.load(locate(checkpoint).path)
    except CheckpointError as error:
        raise EmbedderError(f"--embedder reserve={checkpoint}: {error}") from None
    grid, patch = reserve.config.grid, reserve.config.patch_size

    def embed(pictures: Sequence[np.ndarray]) -> Look:
        out = np.zeros((len(pictures), reserve.config.patches, reserve.config.patch_values), np.float32)
        for picture, patches in zip(pictures, out, strict=True):
            height, width, _ = picture.shape
            placement = images.place(height, width, (grid[0] * patch, grid[1] * patch), None, None)
            images.write_patches(picture, placement, grid, patch, patches)
        return Look(np.asarray(reserve.embed_images_only(out), np.float32))

    return embed


def _onnx(path: str) -> Embed:
    """Return the embedder of a network with one input, `float32 [n, 3, height, width]` in [0, 1].

    Its first output is the features, an optional second output the class scores in [0, 1].
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise EmbedderError("the package onnxruntime is missing; install the extra [asr], which includes it")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The library raises its own untyped exceptions for every kind of bad file.
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001
        raise EmbedderError(f"{path!r} is not an ONNX network: {str(error)[:160]}") from None
    (network_input,) = session.get_inputs()
    _, channels, height, width = network_input.shape
    if channels != 3 or not isinstance(height, int) or not isinstance(width, int):
        raise EmbedderError(
            f"{path!r} has an input of shape {network_input.shape}; it must be [n, 3, height, width] with a fixed size"
        )

    def embed(pictures: Sequence[np.ndarray]) -> Look:
        inputs = _thumbnails(pictures, (width, height)).astype(np.float32).transpose(0, 3, 1, 2) / 255
        features, *more = map(np.asarray, session.run(None, {network_input.name: inputs}))
        return Look(features.reshape(len(inputs), -1), more[0] if more else None)

    return embed


def _entry_point(name: str) -> Embed:
    module, _, attribute = name.partition(":")
    try:
        factory: Callable[[], Embed] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EmbedderError(f"--embedder {name!r} cannot be loaded: {error}") from None
    return factory()
