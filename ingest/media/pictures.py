"""A decoded picture as it is shown, its black bars, and its stored form."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from PIL import Image

from ingest.media.tracks import MAX_PIXELS
from shards.sizes import LONG_SIDE, SHORT_SIDE

FRAME_QUALITY = 75
BLACK_LEVEL = 32
MAX_TRIM = 0.2

MAX_PIXEL_ASPECT = 10
"""A pixel stated to be more than so many times as wide as high, or as high as wide, counts as square."""


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture: its axes are exchanged first, then it is mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Lay `[h, w, 3]` this way; the same array if there is nothing to do."""
        if self == Orientation():
            return image
        image = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(image[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1])


def orientation(frame: av.VideoFrame) -> Orientation:
    """How the frame's display matrix lays it (ISO/IEC 14496-12, 8.4.2), turns being rounded to right angles.

    The matrix takes the point (x, y) to (a x + c y, b x + d y).
    """
    matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return Orientation()
    a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, left_right=c < 0, up_down=b < 0)
    return Orientation(False, left_right=a < 0, up_down=d < 0)


def displayed_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels, the width being scaled like ffmpeg's `scale=iw*sar:ih`."""
    if not pixel_aspect or not Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT:
        return width, height
    wide = max(math.floor(width * pixel_aspect), 1)
    return (wide, height) if wide * height <= MAX_PIXELS else (width, height)


class Content:
    """Which rows and columns ever show something, over all frames of a video."""

    def __init__(self) -> None:
        self.rows: np.ndarray | None = None
        self.columns: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """Look at a frame `uint8 [h, w, 3]`; all frames have one size."""
        rows = frame.reshape(len(frame), -1).max(axis=1) >= BLACK_LEVEL
        columns = frame.max(axis=0).max(axis=1) >= BLACK_LEVEL
        self.rows = rows if self.rows is None else self.rows | rows
        self.columns = columns if self.columns is None else self.columns | columns

    def box(self) -> tuple[int, int, int, int]:
        """`(y1, y2, x1, x2)`: the part that shows something, cutting at most a fifth on each side."""
        return (*_bounds(self.rows), *_bounds(self.columns))


def black_bars(frames: Sequence[np.ndarray]) -> tuple[int, int, int, int]:
    """The box inside the black bars of all `frames` together: rows `[y1, y2)`, columns `[x1, x2)`."""
    content = Content()
    for frame in frames:
        content.add(frame)
    return content.box()


def _bounds(lit: np.ndarray) -> tuple[int, int]:
    size = len(lit)
    where = np.flatnonzero(lit)
    first, last = (int(where[0]), int(where[-1])) if len(where) else (size // 2, size // 2)
    return min(first, int(MAX_TRIM * size)), max(last + 1, int((1 - MAX_TRIM) * size))


def target_size(width: int, height: int, short_side: int = SHORT_SIDE, long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Width and height of a stored frame: sides of at most 288 and 512, never enlarged."""
    short, long = min(width, height), max(width, height)
    size = short_side
    if short <= size:
        return width, height
    if long / short * size > long_side:
        size = round(long_side * short / long)
    if short == size:
        return width, height
    return (size, int(size * height / width)) if width < height else (int(size * width / height), size)


def encode_frame(frame: np.ndarray, box: tuple[int, int, int, int]) -> tuple[bytes, int, int]:
    """A frame cut to `box`, resized and compressed: the JPEG's bytes, its width and its height."""
    y1, y2, x1, x2 = box
    image = Image.fromarray(frame[y1:y2, x1:x2])
    size = target_size(image.width, image.height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=FRAME_QUALITY, optimize=True)
    return buffer.getvalue(), image.width, image.height
