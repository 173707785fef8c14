"""The picture of a question: any of the usual files, upright, in 8 bits of red, green and blue, in its stored size."""

from __future__ import annotations

import functools
import io
import warnings

import numpy as np
from PIL import ExifTags, Image

from ingest.media import target_size
from ingest.questions.question import QuestionError, QuestionOutcome

SHORT_SIDE = 450
LONG_SIDE = 800
QUALITY = 95

MAX_PIXELS = 100_000_000
"""Pixels of the largest picture that is decoded, going by its header."""

MAX_SIDE = 32_768
"""Pixels of the longest side of such a picture."""

FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "TGA", "PCX", "SGI"),
    *("SUN", "XBM", "XPM", "DDS", "QOI", "PSD"),
)
"""Forms that are opened, if Pillow was built with them. Others, such as EPS, start programs or name further files."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What lays a picture upright, by its EXIF orientation (CIPA DC-008, 4.6.4)."""

_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


def open_picture(data: bytes, name: str) -> Image.Image:
    """A picture in its stored size: short side at most 450, long side at most 800.

    It lies as its EXIF orientation says; of several frames it is the first; what is transparent is white; 16 bits
    become 8. Raises `QuestionError` for more than `MAX_PIXELS` pixels, a side over `MAX_SIDE`, and whatever cannot be
    decoded.
    """
    try:
        # Pillow warns of odd metadata, and of fewer pixels than are refused here.
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
            QuestionOutcome.IMAGE_UNREADABLE, f"{name!r} is not a picture that can be read: {str(error)[:100]}"
        ) from None


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def fitted(image: Image.Image) -> Image.Image:
    """Shrink the picture to its stored size, within `SHORT_SIDE` and `LONG_SIDE`."""
    size = target_size(image.width, image.height, SHORT_SIDE, LONG_SIDE)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
    """The picture compressed as it is in the records."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded picture, 1 where it is not readable."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    # Damaged metadata do not make the picture unreadable.
    except Exception:  # noqa: BLE001
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    way = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if way is None else image.transpose(way)


def _in_colour(image: Image.Image) -> Image.Image:
    """A loaded picture in RGB."""
    if image.mode in _GREY_16 or image.mode in ("I", "F"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, "white")
        return Image.alpha_composite(white, above).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image) -> np.ndarray:
    """Grey levels of more than 8 bits as `uint8 [h, w]`: their whole range, which is that of 16 bits for integers.

    Numbers with a fraction range to 1 if none is larger, to 255 or to 65,535 otherwise.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0, neginf=0)
    largest = float(values.max(initial=0))
    if image.mode != "F":
        whole = 65_535.0
    else:
        whole = 1.0 if largest <= 1 else 255.0 if largest <= 255 else 65_535.0
    return np.clip(values * (255 / max(whole, largest)) + 0.5, 0, 255).astype(np.uint8)
