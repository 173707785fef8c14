"""What the preparation of every question-answering set shares: how a question can end, its pictures and its texts.

A question that cannot be used raises `QuestionError` with a reason out of a closed list; nothing is dropped in silence.
"""

from __future__ import annotations

import enum
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ingest.media import target_size
from ingest.outcomes import Kind
from ingest.text import neutralise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

SHORT_SIDE = 450
LONG_SIDE = 800
QUALITY = 95


class QuestionOutcome(enum.Enum):
    """How a question ends. The value is the name written to the ledger."""

    PREPARED = "prepared"
    BAD_LINE = "bad-line"
    LABEL_MISSING = "label-missing"
    LABEL_OUT_OF_RANGE = "label-out-of-range"
    METADATA_MISSING = "metadata-missing"
    METADATA_UNREADABLE = "metadata-unreadable"
    IMAGE_MISSING = "image-missing"
    IMAGE_UNREADABLE = "image-unreadable"
    UNKNOWN_SHOW = "unknown-show"
    FRAMES_MISSING = "frames-missing"
    SOUND_MISSING = "sound-missing"
    SOUND_UNREADABLE = "sound-unreadable"
    SUBTITLES_MISSING = "subtitles-missing"
    MEDIA_UNREADABLE = "media-unreadable"
    TIMES_OUTSIDE = "times-outside"

    @property
    def kind(self) -> Kind:
        """Done or rejected; the same files give the same end."""
        return Kind.DONE if self is QuestionOutcome.PREPARED else Kind.REJECTED


class QuestionError(ValueError):
    """A question cannot be prepared; `outcome` is the reason's name, the message one sentence about this question."""

    def __init__(self, outcome: QuestionOutcome, detail: str):
        super().__init__(detail)
        self.outcome = outcome


def field(line: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of a question's JSON. Raises `QuestionError` if it is missing or of another type."""
    value = line.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise QuestionError(QuestionOutcome.BAD_LINE, f"the field {name!r} is {str(value)[:60]!r} or missing")
    return value


def label(line: dict[str, Any], name: str, options: int, labelled: bool) -> int:
    """Which option is right; 0 where the split has no labels. Raises `QuestionError`."""
    if not labelled:
        return 0
    value = line.get(name)
    if value is None:
        raise QuestionError(QuestionOutcome.LABEL_MISSING, f"there is no {name!r}; only a test split goes without")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < options:
        raise QuestionError(
            QuestionOutcome.LABEL_OUT_OF_RANGE, f"{name} is {value!r} and there are {options} options, from 0"
        )
    return value


def open_picture(data: bytes, name: str) -> Image.Image:
    """A picture in its stored size: short side at most 450, long side at most 800. Raises `QuestionError`."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise QuestionError(QuestionOutcome.IMAGE_UNREADABLE, f"{name} is no picture: {str(error)[:100]}") from None
    return fitted(image)


def fitted(image: Image.Image) -> Image.Image:
    """The picture in its stored size (spec finetune_data.md 1)."""
    size = target_size(image.width, image.height, SHORT_SIDE, LONG_SIDE)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
    """The picture compressed as the records hold it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Token ids `int64 [n]` of a text, which can never spell a special token."""
    return np.array(tokenizer.encode(neutralise(text), add_special_tokens=False).ids, np.int64)


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Token ids of several texts."""
    return tuple(encode(tokenizer, text) for text in texts)
