"""Resize images directly into patches, with the results of `tf.image.resize` with antialiasing to float precision.

A resize is two small tables of weights, one per axis, cached per (size, size, method) and applied by a compiled kernel
that computes only the pixels inside the crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int32, Shaped, UInt8, UInt16
from numba import njit

METHODS = ("area", "bicubic", "bilinear", "gaussian", "lanczos3", "lanczos5", "mitchellcubic", "nearest")
"""The methods that training samples from (docs/spec/shards.md 6.5)."""

Taps = tuple[Int32[np.ndarray, "n"], Float32[np.ndarray, "n taps"]]
"""First source index and weights of each output position."""

_Distances = Float32[np.ndarray, "n taps"]
"""Absolute distances from the centre of a kernel, in source pixels."""


def _triangle(x: _Distances) -> _Distances:
    return np.maximum(1 - x, 0)


def _cubic(x: _Distances) -> _Distances:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _mitchell(x: _Distances) -> _Distances:
    near = (7 / 6 * x - 2) * x * x + 8 / 9
    far = ((-7 / 18 * x + 2) * x - 10 / 3) * x + 16 / 9
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _gaussian(x: _Distances) -> _Distances:
    # A standard deviation of half a pixel, truncated at three deviations.
    return np.where(x < 1.5, np.exp(-2 * x * x), 0)


def _lanczos(radius: int) -> Callable[[_Distances], _Distances]:
    return lambda x: np.where(x <= radius, np.sinc(x) * np.sinc(x / radius), 0)


_KERNELS: dict[str, tuple[float, Callable[[_Distances], _Distances]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _cubic),
    "mitchellcubic": (2.0, _mitchell),
    "gaussian": (1.5, _gaussian),
    "lanczos3": (3.0, _lanczos(3)),
    "lanczos5": (5.0, _lanczos(5)),
}


@lru_cache(maxsize=4096)
def taps(source: int, target: int, method: str) -> Taps:
    """Return the weights that resize an axis of `source` pixels to `target` pixels."""
    # All in float32, as in TensorFlow: rounding decides whether a pixel on the edge of a kernel counts.
    wide, narrow = np.float32(source), np.float32(target)
    ratio = wide / narrow if method == "nearest" else 1 / (narrow / wide)
    centres = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * ratio
    if method == "nearest":
        return np.minimum(centres.astype(np.int32), source - 1), np.ones((target, 1), np.float32)
    if method == "area":
        return _normalised(*_coverage(source, target))
    radius, kernel = _KERNELS[method]
    # Downscaling widens the kernel: this is the antialiasing.
    stretch = max(ratio, np.float32(1))
    first = np.clip(np.ceil(centres - radius * stretch - 0.5), 0, source - 1).astype(np.int32)
    last = np.clip(np.floor(centres + radius * stretch - 0.5), 0, source - 1).astype(np.int32)
    index = first[:, None] + np.arange((last - first).max() + 1)
    distance = index.astype(np.float32) + np.float32(0.5) - centres[:, None]
    weights = kernel(np.abs(distance * (1 / stretch)))
    return _normalised(first, np.where(index <= last[:, None], weights, 0))


def _coverage(source: int, target: int) -> Taps:
    edges = np.arange(target + 1) * (source / target)
    first = np.minimum(edges[:-1].astype(np.int32), source - 1)
    index = first[:, None] + np.arange(math.ceil(source / target) + 1)
    overlap = np.minimum(index + 1, edges[1:, None]) - np.maximum(index, edges[:-1, None])
    return first, np.where(index < source, np.maximum(overlap, 0), 0)


def _normalised(first: Int32[np.ndarray, "n"], weights: Float[np.ndarray, "n taps"]) -> Taps:
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    used = np.flatnonzero(weights.any(axis=0))[-1] + 1
    return first, np.ascontiguousarray(weights[:, :used])


@njit(nogil=True, cache=True, fastmath={"contract"})
def resample_into_patches(
    image: Shaped[np.ndarray, "source_height source_width 3"],
    row_first: Int32[np.ndarray, "height"],
    row_weights: Float32[np.ndarray, "height row_taps"],
    column_first: Int32[np.ndarray, "width"],
    column_weights: Float32[np.ndarray, "width column_taps"],
    patch: int,
    grid_width: int,
    out: Float32[np.ndarray, "patches values"],
) -> None:
    """Resize an image to the rows and columns of the two tables and write it as patches.

    `out` has row-major patches of (row, column, channel) pixels, clipped to [0, 1]; pixels outside the tables become 0.
    The row weights include the factor that maps the input to [0, 1].
    """
    height, width = row_first.size, column_first.size
    source_height, source_width = image.shape[0], image.shape[1]
    low = column_first[0]
    columns = min(source_width, column_first[-1] + column_weights.shape[1]) - low
    flat = image.reshape(source_height, source_width * 3)
    # One strip of patch rows at a time: first its lines, then the same column-major, so that the horizontal pass
    # vectorises over a whole column, and then the columns of its patches.
    lines = np.zeros((patch, columns * 3), np.float32)
    strip = np.empty((columns, patch * 3), np.float32)
    totals = np.zeros((grid_width * patch, patch * 3), np.float32)
    for top in range(0, out.shape[0] // grid_width * patch, patch):
        patches = out[top // patch * grid_width : (top // patch + 1) * grid_width]
        rows = min(max(height - top, 0), patch)
        if rows == 0:
            patches[:] = 0
            continue
        lines[rows:] = 0
        strip_rows = slice(top, top + rows)
        _weighted_sums(flat, row_first[strip_rows], row_weights[strip_rows], low * 3, lines[:rows])
        _transpose(lines, strip)
        _weighted_sums(strip, column_first - low, column_weights, 0, totals[:width])
        for left in range(grid_width):
            _write_patch(totals[left * patch : (left + 1) * patch], patches[left].reshape(patch, patch * 3))


@njit(nogil=True, cache=True, fastmath={"contract"})
def _weighted_sums(
    values: Shaped[np.ndarray, "lines m"],
    first: Int32[np.ndarray, "k"],
    weights: Float32[np.ndarray, "k taps"],
    start: int,
    out: Float32[np.ndarray, "k n"],
) -> None:
    """Compute `out[k]`: the sum of `values[first[k]:, start : start + n]` weighted by row with `weights[k]`.

    Trailing zeros of the weights are skipped.
    """
    # Unsigned, because a signed index may count from the end, which prevents vectorisation.
    n, offset = np.uint64(out.shape[1]), np.uint64(start)
    for k in range(np.uint64(out.shape[0])):
        used = weights.shape[1]
        while used > 1 and weights[k, used - 1] == 0:
            used -= 1
        a = np.uint64(first[k])
        b, c = a + np.uint64(1), a + np.uint64(2)
        wa = weights[k, 0]
        if used == 1:
            for i in range(n):
                out[k, i] = wa * np.float32(values[a, offset + i])
            continue
        wb = weights[k, 1]
        if used == 2:
            for i in range(n):
                out[k, i] = wa * np.float32(values[a, offset + i]) + wb * np.float32(values[b, offset + i])
            continue
        wc = weights[k, 2]
        for i in range(n):
            first_two = wa * np.float32(values[a, offset + i]) + wb * np.float32(values[b, offset + i])
            out[k, i] = first_two + wc * np.float32(values[c, offset + i])
        for t in range(3, used - 1, 2):
            a, b = np.uint64(first[k] + t), np.uint64(first[k] + t + 1)
            wa, wb = weights[k, t], weights[k, t + 1]
            for i in range(n):
                out[k, i] += wa * np.float32(values[a, offset + i]) + wb * np.float32(values[b, offset + i])
        if used % 2 == 0:
            a, wa = np.uint64(first[k] + used - 1), weights[k, used - 1]
            for i in range(n):
                out[k, i] += wa * np.float32(values[a, offset + i])


@njit(nogil=True, cache=True)
def _transpose(lines: Float32[np.ndarray, "rows columns*3"], strip: Float32[np.ndarray, "columns rows*3"]) -> None:
    """Write the pixels of `lines` to `strip` in column-major order."""
    for x in range(strip.shape[0]):
        for r in range(lines.shape[0]):
            for c in range(3):
                strip[x, r * 3 + c] = lines[r, x * 3 + c]


@njit(nogil=True, cache=True)
def _write_patch(columns: Float32[np.ndarray, "patch patch*3"], out: Float32[np.ndarray, "patch patch*3"]) -> None:
    """Write the pixels of `columns` to `out` in row-major order, clipped to [0, 1]."""
    for r in range(out.shape[0]):
        for x in range(columns.shape[0]):
            for c in range(3):
                out[r, x * 3 + c] = min(max(columns[x, r * 3 + c], np.float32(0)), np.float32(1))


@njit(nogil=True, cache=True)
def to_bfloat16(values: Float32[np.ndarray, "n"], out: UInt16[np.ndarray, "n"]) -> None:
    """Round finite values to the nearest bfloat16, ties to even, and write the bits to `out`."""
    bits = values.view(np.uint32)
    for i in range(values.size):
        out[i] = np.uint16((bits[i] + np.uint32(0x7FFF) + ((bits[i] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@njit(nogil=True, cache=True)
def to_uint8(values: Float32[np.ndarray, "n"], out: UInt8[np.ndarray, "n"]) -> None:
    """Round values in [0, 1] to the nearest of 256 levels and write them to `out`."""
    for i in range(values.size):
        out[i] = np.uint8(values[i] * np.float32(255) + np.float32(0.5))
