"""Orientation and size of decoded frames, black bars, and JPEG encoding."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from jaxtyping import Bool, UInt8
from PIL import Image

from ingest.media.tracks import MAX_PIXELS
from shards.sizes import LONG_SIDE, SHORT_SIDE

FRAME_QUALITY = 75
BLACK_LEVEL = 32
MAX_TRIM = 0.2

MAX_PIXEL_ASPECT = 10
"""Maximum aspect ratio of a pixel, wide or high; pixels with a larger stated ratio count as square."""


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of an image: its axes are transposed first, then it is mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """Return the image in this orientation; the same array if it is upright."""
        if self == Orientation():
            return image
        image = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(image[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1])


def orientation(frame: av.VideoFrame) -> Orientation:
    """Return the orientation of a frame's display matrix (ISO/IEC 14496-12, 8.4.2), rounded to right angles.

    The matrix maps the point (x, y) to (a x + c y, b x + d y).
    """
    # The container looks up side data by type; the stub of `Mapping.get` has its names only.
    matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if matrix is None:
        return Orientation()
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, left_right=c < 0, up_down=b < 0)
    return Orientation(False, left_right=a < 0, up_down=d < 0)


def displayed_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return width and height with square pixels; the width is scaled like ffmpeg's `scale=iw*sar:ih`."""
    if not pixel_aspect or not Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT:
        return width, height
    wide = max(math.floor(width * pixel_aspect), 1)
    return (wide, height) if wide * height <= MAX_PIXELS else (width, height)


class Content:
    """Accumulates the rows and columns that are not black in all frames of a video."""

    def __init__(self) -> None:
        self.rows: Bool[np.ndarray, "h"] | None = None
        self.columns: Bool[np.ndarray, "w"] | None = None

    def add(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Add a frame; all frames have one size."""
        rows = frame.reshape(len(frame), -1).max(axis=1) >= BLACK_LEVEL
        columns = frame.max(axis=0).max(axis=1) >= BLACK_LEVEL
        self.rows = rows if self.rows is None else self.rows | rows
        self.columns = columns if self.columns is None else self.columns | columns

    def box(self) -> tuple[int, int, int, int]:
        """Return the box `(y1, y2, x1, x2)` that is not black, cutting at most a fifth on each side."""
        if self.rows is None or self.columns is None:
            raise ValueError("there are no frames; add one first")
        return (*_bounds(self.rows), *_bounds(self.columns))


def black_bars(frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> tuple[int, int, int, int]:
    """Return the box inside the black bars of all `frames` together: rows `[y1, y2)`, columns `[x1, x2)`."""
    content = Content()
    for frame in frames:
        content.add(frame)
    return content.box()


def _bounds(lit: Bool[np.ndarray, "n"]) -> tuple[int, int]:
    size = len(lit)
    where = np.flatnonzero(lit)
    first, last = (int(where[0]), int(where[-1])) if len(where) else (size // 2, size // 2)
    return min(first, int(MAX_TRIM * size)), max(last + 1, int((1 - MAX_TRIM) * size))


def target_size(width: int, height: int, short_side: int = SHORT_SIDE, long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Return width and height of a stored frame: sides of at most `short_side` and `long_side`, never enlarged."""
    short, long = min(width, height), max(width, height)
    size = short_side
    if short <= size:
        return width, height
    if long / short * size > long_side:
        size = round(long_side * short / long)
    if short == size:
        return width, height
    return (size, int(size * height / width)) if width < height else (int(size * width / height), size)


def encode_frame(frame: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int]) -> tuple[bytes, int, int]:
    """Crop a frame to `box`, resize and compress it; return the bytes of the JPEG, its width and its height."""
    y1, y2, x1, x2 = box
    image = Image.fromarray(frame[y1:y2, x1:x2])
    size = target_size(image.width, image.height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=FRAME_QUALITY, optimize=True)
    return buffer.getvalue(), image.width, image.height
