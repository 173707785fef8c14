"""JPEG bytes of records, of which the header is checked before memory is allocated for the picture."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

from shards.storage.errors import RecordError

MAX_PIXELS = 1 << 25
"""A larger picture is refused: 8192 by 4096 pixels take 100 MB. The frames of a data folder have 512 by 288."""

MAX_SIDE = 1 << 14

MAX_SCANS = 100
"""A picture of more scans is refused; each costs as much as the whole picture, and encoders write up to 20."""

_SCAN = b"\xff\xda"


def size(jpeg: bytes, kind: str) -> tuple[int, int]:
    """The (height, width) in the header of a `kind` of picture. Raises `RecordError` if it may not be decoded."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise RecordError(f"a {kind} of {len(jpeg)} bytes is no JPEG picture: {error}") from None
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise RecordError(f"a {kind} of {len(jpeg)} bytes has {width}x{height} pixels, more than {MAX_PIXELS:,}")
    if not _has_one_scan(jpeg) and jpeg.count(_SCAN) > MAX_SCANS:
        raise RecordError(f"a {kind} of {len(jpeg)} bytes has more than {MAX_SCANS} scans")
    return height, width


def _has_one_scan(jpeg: bytes) -> bool:
    """Whether a picture is sequential with all its components in the first scan, as encoders write by default."""
    at, components = 2, b""
    while jpeg[at : at + 1] == b"\xff":
        marker = jpeg[at + 1 : at + 2]
        if marker in (b"\xc0", b"\xc1"):
            components = jpeg[at + 9 : at + 10]
        elif marker == b"\xda":
            return jpeg[at + 4 : at + 5] == components
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if length < 2:
            return False
        at += 2 + length
    return False


def rgb(jpeg: bytes) -> np.ndarray:
    """The frame in JPEG bytes: `uint8 [h, w, 3]`. Raises `RecordError` if it is none, or too large."""
    size(jpeg, "frame")
    try:
        # The transforms that the published models were trained on, named so that no platform's default decides.
        return simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=True, fastupsample=False)
    except ValueError as error:
        raise RecordError(f"a frame of {len(jpeg)} bytes is no JPEG picture: {error}") from None


def grey(jpeg: bytes, shape: tuple[int, int]) -> np.ndarray:
    """The grey levels of a spectrogram of this shape: `uint8 [h, w]`. Raises `RecordError` if it is none."""
    if (actual := size(jpeg, "spectrogram")) != shape:
        raise RecordError(f"a spectrogram has the shape {actual} instead of {shape}")
    try:
        # The transform that the published models were trained on; the exact one differs by up to 18 grey levels.
        return simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, fastupsample=False)[..., 0]
    except ValueError as error:
        raise RecordError(f"a spectrogram of {len(jpeg)} bytes is no JPEG picture: {error}") from None


def reduced(jpeg: bytes, mode: str, least: tuple[int, int]) -> Image.Image:
    """A picture at the smallest scale that is at least `least` (width, height). Raises `RecordError` if it is none."""
    size(jpeg, "picture")
    try:
        image = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        image.draft(mode, least)
        return image.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise RecordError(f"a picture of {len(jpeg)} bytes is no JPEG picture: {error}") from None
