"""Decode JPEG images of records; the header is checked before memory is allocated for the image."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from shards.storage.errors import RecordError

MAX_PIXELS = 1 << 25
"""Maximum number of pixels: 8192 x 4096 pixels use 100 MB. The frames of a data folder have 512 x 288."""

MAX_SIDE = 1 << 14

MAX_SCANS = 100
"""Maximum number of scans: each costs as much as decoding the image, and encoders write up to 20."""

_SCAN = b"\xff\xda"


def size(jpeg: bytes, kind: str) -> tuple[int, int]:
    """Return (height, width) from the header of an image; `kind` names it in messages.

    Raises `RecordError` if the bytes are not a JPEG image or exceed the limits of this module.
    """
    try:
        header = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise RecordError(f"a {kind} of {len(jpeg)} bytes is not a JPEG image: {error}") from None
    height, width = int(header[0]), int(header[1])
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise RecordError(f"a {kind} of {len(jpeg)} bytes has {width}x{height} pixels, more than {MAX_PIXELS:,}")
    if not _has_one_scan(jpeg) and jpeg.count(_SCAN) > MAX_SCANS:
        raise RecordError(f"a {kind} of {len(jpeg)} bytes has more than {MAX_SCANS} scans")
    return height, width


def _has_one_scan(jpeg: bytes) -> bool:
    """Return whether an image is sequential with all components in the first scan, the default of encoders."""
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


def rgb(jpeg: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Return the frame in JPEG bytes. Raises `RecordError` if they are not a JPEG image, or it is too large."""
    size(jpeg, "frame")
    try:
        # The transforms that the published models were trained with, independent of platform defaults.
        return simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=True, fastupsample=False)
    except ValueError as error:
        raise RecordError(f"a frame of {len(jpeg)} bytes is not a JPEG image: {error}") from None


def grey(jpeg: bytes, shape: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Return the grey levels of a spectrogram. Raises `RecordError` if it is not a JPEG image of this shape."""
    if (actual := size(jpeg, "spectrogram")) != shape:
        raise RecordError(f"a spectrogram has the shape {actual} instead of {shape}")
    try:
        # The transform that the published models were trained with; the exact one differs by up to 18 grey levels.
        return simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, fastupsample=False)[..., 0]
    except ValueError as error:
        raise RecordError(f"a spectrogram of {len(jpeg)} bytes is not a JPEG image: {error}") from None


def reduced(jpeg: bytes, mode: str, least: tuple[int, int]) -> Image.Image:
    """Return an image at the smallest decoder scale of at least `least` (width, height).

    Raises `RecordError` if the bytes are not a JPEG image.
    """
    size(jpeg, "picture")
    try:
        image = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        image.draft(mode, least)
        return image.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise RecordError(f"a picture of {len(jpeg)} bytes is not a JPEG image: {error}") from None
