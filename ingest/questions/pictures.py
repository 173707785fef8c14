"""Decode the image of a question from any common format to upright 8-bit RGB in its stored size."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from ingest.media import target_size
from ingest.questions.question import QuestionError, QuestionOutcome

SHORT_SIDE = 450
LONG_SIDE = 800
QUALITY = 95

MAX_PIXELS = 100_000_000
"""Maximum number of pixels of an image, according to its header."""

MAX_SIDE = 32_768
"""Maximum width and height of an image in pixels."""

FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "TGA", "PCX", "SGI"),
    *("SUN", "XBM", "XPM", "DDS", "QOI", "PSD"),
)
"""Supported formats, if Pillow was built with them. Others, such as EPS, start programs or refer to other files."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that makes an image upright, by its EXIF orientation (CIPA DC-008, 4.6.4)."""

_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


def open_picture(data: bytes, name: str) -> Image.Image:
    """Decode an image and resize it to its stored size: short side at most 450, long side at most 800.

    The EXIF orientation is applied; of several frames the first one is used; transparent pixels become white; 16 bits
    become 8. Raises `QuestionError` for more than `MAX_PIXELS` pixels, a side over `MAX_SIDE`, and files that cannot be
    decoded.
    """
    try:
        # Pillow warns about unusual metadata, and about fewer pixels than the limit here.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=_formats()) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise ValueError(
                    f"it has {width} by {height} pixels; at most {MAX_PIXELS} and {MAX_SIDE} a side are decoded"
                )
            opened.load()
            return fitted(_upright(_in_colour(opened), _orientation(opened)))
    except MemoryError:
        raise
    # Decoders raise many kinds of exceptions for damaged files.
    except Exception as error:  # noqa: BLE001
        raise QuestionError(
            QuestionOutcome.IMAGE_UNREADABLE, f"{name!r} cannot be decoded as an image: {str(error)[:100]}"
        ) from None


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def fitted(image: Image.Image) -> Image.Image:
    """Return the image reduced to its stored size, within `SHORT_SIDE` and `LONG_SIDE`."""
    size = target_size(image.width, image.height, SHORT_SIDE, LONG_SIDE)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
    """Return the image as JPEG bytes with the quality of the records."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 if it is not valid."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    # Damaged metadata do not make the image unreadable.
    except Exception:  # noqa: BLE001
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    operation = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if operation is None else image.transpose(operation)


def _in_colour(image: Image.Image) -> Image.Image:
    """Return a loaded image in RGB."""
    if image.mode in _GREY_16 or image.mode in ("I", "F"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", foreground.size, "white")
        return Image.alpha_composite(white, foreground).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """Convert grey levels of more than 8 bits, of their full range: that of 16 bits for integers.

    The range of floating-point levels ends at 1, 255 or 65,535, whichever is the first that is not exceeded.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0, neginf=0)
    largest = float(values.max(initial=0))
    if image.mode != "F":
        white = 65_535.0
    else:
        white = 1.0 if largest <= 1 else 255.0 if largest <= 255 else 65_535.0
    return np.clip(values * (255 / max(white, largest)) + 0.5, 0, 255).astype(np.uint8)
