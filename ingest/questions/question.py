"""Common parts of the preparation of questions: outcomes, fields, paths and texts.

An invalid question raises `QuestionError` with a reason from a closed list; none is dropped silently.
"""

from __future__ import annotations

import enum
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from ingest.text import neutralise
from shards.outcomes import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

_HALF = re.compile("[\ud800-\udfff]")
"""A single surrogate, as in texts that were cut in the middle of an emoji."""

_SHOWN = 60
"""Maximum number of characters of a value quoted in a message."""


class QuestionOutcome(enum.Enum):
    """The outcome of a question. The value is the name in the ledger."""

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

    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"
    CRASHED = "crashed"

    @property
    def kind(self) -> Kind:
        """Done, rejected because of its line or files, or failed because its preparation was aborted."""
        if self in (QuestionOutcome.TIMED_OUT, QuestionOutcome.OUT_OF_MEMORY, QuestionOutcome.CRASHED):
            return Kind.FAILED_FINAL
        return Kind.DONE if self is QuestionOutcome.PREPARED else Kind.REJECTED


class QuestionError(ValueError):
    """A question cannot be prepared; `outcome` is the reason, the message one sentence with the details."""

    def __init__(self, outcome: QuestionOutcome, detail: str):
        super().__init__(detail)
        self.outcome = outcome


def field(line: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """Return a field of a question's JSON. Raises `QuestionError` if it is missing or of another type."""
    value = line.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise QuestionError(QuestionOutcome.BAD_LINE, f"the field {name!r} is {str(value)[:_SHOWN]!r} or missing")
    return value


def text_of(line: dict[str, Any], name: str) -> str:
    """Return a text field. Raises `QuestionError` if it is missing, blank or not a text."""
    value = field(line, name, str)
    if not value.strip():
        raise QuestionError(QuestionOutcome.BAD_LINE, f"the field {name!r} is empty; write a text")
    return value


def name_of(line: dict[str, Any], name: str) -> str:
    """Return a field that is a name, such as an id or a path. Raises `QuestionError` if it is not a valid file name."""
    value = text_of(line, name)
    if "\0" in value or _HALF.search(value):
        raise QuestionError(
            QuestionOutcome.BAD_LINE, f"the field {name!r} is {value[:_SHOWN]!r}, which contains a NUL or a surrogate"
        )
    return value


def path_in(folder: str | Path, line: dict[str, Any], name: str) -> Path:
    """Return the path in a field, relative to `folder` or absolute, which must be inside that folder.

    Symbolic links inside the folder are allowed to point elsewhere. Raises `QuestionError`.
    """
    value = name_of(line, name)
    root = Path(os.path.normpath(Path(folder).absolute()))
    place = Path(os.path.normpath(root / value))
    if place == root or not place.is_relative_to(root):
        raise QuestionError(
            QuestionOutcome.BAD_LINE,
            f"the field {name!r} is {value[:_SHOWN]!r}, which is not in the folder {str(root)!r}",
        )
    return Path(folder) / place.relative_to(root)


def is_file(path: Path) -> bool:
    """Return whether a regular file exists; false for a name that is too long for the file system."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_file(path: Path, unreadable: QuestionOutcome) -> bytes:
    """Return the content of an existing file. Raises `QuestionError` with the outcome `unreadable` if that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise QuestionError(unreadable, f"{str(path)[:200]!r} cannot be read: {error.strerror}") from None


def check_options(texts: Sequence[str], name: str) -> None:
    """Raise `QuestionError` for an option that is blank, or that equals another one after stripping."""
    seen: dict[str, int] = {}
    for number, text in enumerate(texts):
        plain = text.strip()
        if not plain:
            raise QuestionError(QuestionOutcome.BAD_LINE, f"{name} has an empty option, number {number} from 0")
        if plain in seen:
            raise QuestionError(
                QuestionOutcome.BAD_LINE,
                f"{name} has the option {plain[:_SHOWN]!r} twice, as numbers {seen[plain]} and {number} from 0",
            )
        seen[plain] = number


def label(line: dict[str, Any], name: str, options: int, labelled: bool) -> int:
    """Return the number of the correct option; 0 if the split has no labels. Raises `QuestionError`."""
    if not labelled:
        return 0
    value = line.get(name)
    if value is None:
        raise QuestionError(QuestionOutcome.LABEL_MISSING, f"there is no {name!r}; only a test split has no labels")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < options:
        raise QuestionError(
            QuestionOutcome.LABEL_OUT_OF_RANGE, f"{name} is {value!r} and there are {options} options, from 0"
        )
    return value


def encode(tokenizer: Tokenizer, text: str) -> Int64[np.ndarray, "tokens"]:
    """Return the token ids of a text, never special tokens; a single surrogate becomes U+FFFD."""
    text = _HALF.sub("\ufffd", neutralise(text))
    return np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)


def encode_all(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Int64[np.ndarray, "tokens"], ...]:
    """Return the token ids of several texts."""
    return tuple(encode(tokenizer, text) for text in texts)
