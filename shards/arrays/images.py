"""Decode a frame and resize it into the patches of the vision encoder (docs/spec/shards.md 6).

NumPy and compiled kernels only: the reader, inference and reports share this code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from numba import njit

from shards.arrays import jpeg as jpeg_pictures
from shards.arrays.resampling import METHODS, resample_into_patches, taps, to_bfloat16, to_uint8
from shards.sizes import Scaling

MARKER_COLUMNS = 4
"""Grey columns on both sides of a rotated image."""

_F = np.float32
_SMALLEST_SIDE = 64


@dataclass(frozen=True)
class Placement:
    """The size after resizing, the top left corner of the crop, and the resizing method."""

    height: int
    width: int
    top: int = 0
    left: int = 0
    method: str = "bilinear"


def decode(jpeg: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Return the RGB image in JPEG bytes. Raises `RecordError` if they are not a JPEG image or it is too large."""
    return jpeg_pictures.rgb(jpeg)


def turn(image: UInt8[np.ndarray, "h w 3"]) -> Shaped[np.ndarray, "h2 w2 3"]:
    """Return a portrait image rotated counter-clockwise between two marker stripes, as float32 in [0, 255].

    Other images are returned unchanged.
    """
    height, width = image.shape[:2]
    if 3 * height < 4 * width:
        return image
    turned = np.empty((width, height + 2 * MARKER_COLUMNS, 3), np.float32)
    _turn_between_markers(image, turned)
    return turned


@njit(nogil=True, cache=True)
def _turn_between_markers(image: UInt8[np.ndarray, "h w 3"], out: Float32[np.ndarray, "w h+8 3"]) -> None:
    height, width = image.shape[:2]
    out[:, :MARKER_COLUMNS] = 127.5
    out[:, MARKER_COLUMNS + height :] = 127.5
    for y in range(width):
        for x in range(height):
            for c in range(3):
                out[y, MARKER_COLUMNS + x, c] = image[x, width - 1 - y, c]


def place(
    height: int, width: int, target: tuple[int, int], scaling: Scaling | None, rng: np.random.Generator | None
) -> Placement:
    """Return the placement of an image of this size in the target; without `scaling` it fits, anchored top left.

    Every step of the arithmetic is in float32, because its truncation determines sizes.
    """
    target_height, target_width = target
    fit = (_F(target_width) / _F(width), _F(target_height) / _F(height))
    if scaling is None or rng is None:
        scale = min(fit)
        return Placement(_truncate(height, scale), _truncate(width, scale))
    low, high = _F(scaling.low), _F(scaling.high)
    factor = low + (high - low) * rng.random(dtype=np.float32)
    if not scaling.shrink_both_sides:
        factor = min(factor, max(fit))
    scaled_height, scaled_width = int(factor * _F(target_height)), int(factor * _F(target_width))
    scale = min(_F(scaled_width) / _F(width), _F(scaled_height) / _F(height))
    scale = max(scale, _F(_SMALLEST_SIDE) / _F(min(height, width)))
    new_height, new_width = _truncate(height, scale), _truncate(width, scale)
    top = int(_F(max(0, new_height - target_height)) * rng.random(dtype=np.float32))
    left = int(_F(max(0, new_width - target_width)) * rng.random(dtype=np.float32))
    return Placement(new_height, new_width, top, left, METHODS[rng.integers(len(METHODS))])


def _truncate(side: int, scale: np.float32) -> int:
    return max(int(_F(side) * scale), 1)


def write_patches(
    image: Shaped[np.ndarray, "h w 3"],
    placement: Placement,
    grid: tuple[int, int],
    patch: int,
    out: Shaped[np.ndarray, "patches values"],
) -> None:
    """Write an image in [0, 255] as patches of the grid, each of `patch` x `patch` pixels.

    The dtype of `out` is float32 (values in [0, 1]), uint8 (in [0, 255]), or uint16 (the bits of bfloat16 in [0, 1]).
    """
    row_first, row_weights = taps(image.shape[0], placement.height, placement.method)
    column_first, column_weights = taps(image.shape[1], placement.width, placement.method)
    rows = slice(placement.top, placement.top + grid[0] * patch)
    columns = slice(placement.left, placement.left + grid[1] * patch)
    values = out if out.dtype == np.float32 else np.empty(out.shape, np.float32)
    resample_into_patches(
        np.ascontiguousarray(image),
        row_first[rows],
        row_weights[rows] * _F(1 / 255),
        column_first[columns],
        column_weights[columns],
        patch,
        grid[1],
        values,
    )
    if out.dtype == np.uint16:
        to_bfloat16(values.reshape(-1), out.reshape(-1))
    elif out.dtype == np.uint8:
        to_uint8(values.reshape(-1), out.reshape(-1))
