"""What the records of all question-answering tasks share: their configuration, their options as tokens, their pictures.

A question becomes one row of tokens for each of its options: question, separator, option, MASK. The classifier reads
the network's output at the MASK (spec finetune_data.md 2.8, 3.8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np

from shards import images
from shards.errors import UsageError
from shards.images import Scaling
from shards.randomness import generator
from shards.reading.pretraining import Arrays, Streams
from shards.records.example import Feature, RecordError
from shards.tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PADDING

ID_BYTES = 96
"""Longest id of a question, in bytes of UTF-8."""

ANSWER_SEPARATOR = (2216, 35, 149)
"""`answer: ` in the published vocabulary."""
RATIONALE_SEPARATOR = (19283, 1406, 35, 149)
"""`rationale: ` in the published vocabulary."""

_INTEGERS = np.dtype(np.int64)
_NOT_IN_TEXT = np.array([PADDING, MASK, MASKAUDIO, AUDIOSPAN, LTOVPOOL])
_FROM_PUBLISHED = {
    "output_grid": "grid",
    "vit_patch_size": "patch_size",
    "lang_seq_len": "text_length",
    "do_random_scale": "random_scale",
    "random_scale_min": "scale_min",
    "random_scale_max": "scale_max",
    "shrink_both_sides": "shrink_both_sides",
    "do_flip_if_vertical": "turn_portraits",
}


@dataclass(frozen=True)
class QuestionConfig:
    """What the reader makes of a question, whatever the task.

    `training` turns on everything random. The grid is (rows, columns) of patches.
    """

    training: bool = False
    grid: tuple[int, int] = (18, 32)
    patch_size: int = 16
    text_length: int = 144
    """Tokens in one row; longer ones are cut."""
    cut: Literal["question", "end"] = "question"
    """What an over-long option loses: the beginning of the question, or, as published, whatever comes last."""
    random_scale: bool = True
    scale_min: float = 1.0
    scale_max: float = 1.1
    shrink_both_sides: bool = True
    turn_portraits: bool = True
    image_dtype: Literal["float32", "bfloat16"] = "float32"
    answer_separator: tuple[int, ...] = ANSWER_SEPARATOR
    """How the data's vocabulary spells `answer: `."""

    def __post_init__(self) -> None:
        if self.text_length < 8:
            raise UsageError(f"text_length is {self.text_length}; it must be at least 8")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise UsageError(f"grid is {self.grid}; it must be (rows, columns)")

    @property
    def scaling(self) -> Scaling | None:
        """The random zoom of training pictures."""
        if not (self.training and self.random_scale):
            return None
        return Scaling(self.scale_min, self.scale_max, self.shrink_both_sides)

    @property
    def patches(self) -> tuple[int, int]:
        """Patches of one picture and the numbers in each."""
        return self.grid[0] * self.grid[1], self.patch_size**2 * 3

    @property
    def floats(self) -> np.dtype:
        """The type of pictures and sounds."""
        return np.dtype(ml_dtypes.bfloat16 if self.image_dtype == "bfloat16" else self.image_dtype)


def published_fields(mapping: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a configuration behind the published keys; `own` adds those of one task.

    Raises `UsageError` for keys nobody knows.
    """
    names = _FROM_PUBLISHED | dict(own)
    if unknown := sorted(set(mapping) - set(names) - {"use_bfloat16"}):
        raise UsageError(f"the configuration has unknown keys: {', '.join(map(repr, unknown))}; remove them")
    values = {names[key]: value for key, value in mapping.items() if key in names}
    if "grid" in values:
        values["grid"] = tuple(values["grid"])
    return values | ({"image_dtype": "bfloat16"} if mapping.get("use_bfloat16") else {})


class Fields:
    """The features of a question's record, with the type and number of values that the schema asks for."""

    def __init__(self, features: Mapping[str, Feature]):
        self.features = features

    def bytes(self, name: str) -> bytes:
        """The only string of a feature. Raises `RecordError` if there is not exactly one."""
        values = self._get(name)
        if not isinstance(values, list) or len(values) != 1:
            raise RecordError(f"the feature {name!r} must hold exactly one string")
        return values[0]

    def id(self) -> str:
        """The question's id."""
        try:
            return self.bytes("id").decode()
        except UnicodeDecodeError:
            raise RecordError("the feature 'id' is not UTF-8") from None

    def text(self, name: str) -> np.ndarray:
        """Token ids, `int64 [n]`. Raises `RecordError` for values that no text can hold."""
        values = self._get(name)
        if isinstance(values, list) and not values:
            return np.zeros(0, _INTEGERS)
        if isinstance(values, list) or (values.size and values.dtype.kind != "i"):
            raise RecordError(f"the feature {name!r} holds values of another type")
        if values.size and (values.min() < 0 or np.isin(values, _NOT_IN_TEXT).any()):
            raise RecordError(f"the text {name!r} holds padding or a mask token")
        return values.astype(_INTEGERS)

    def number(self, name: str) -> float | int:
        """The only number of a feature. Raises `RecordError` if there is not exactly one."""
        values = self._get(name)
        if isinstance(values, list) or values.size != 1:
            raise RecordError(f"the feature {name!r} must hold exactly one number")
        return values[0].item()

    def label(self, name: str, options: int) -> int:
        """Which option is right. Raises `RecordError` for one that is not there."""
        label = self.number(name)
        if label not in range(options):
            raise RecordError(f"{name} is {label} and there are {options} options")
        return int(label)

    def _get(self, name: str) -> Feature:
        try:
            return self.features[name]
        except KeyError:
            raise RecordError(f"the feature {name!r} is missing: it is a record of another kind") from None


def scalar(value: int) -> np.ndarray:
    """An integer as a feature."""
    return np.array([value], _INTEGERS)


def encoded_id(name: str) -> bytes:
    """An id as a feature. Raises `ValueError` if it is too long to be read back."""
    data = name.encode()
    if not 0 < len(data) <= ID_BYTES:
        raise ValueError(f"the id {name[:40]!r} has {len(data)} bytes; 1 to {ID_BYTES} fit")
    return data


def write_id(name: str, out: np.ndarray) -> None:
    """Write an id as `uint8 [96]`, so that it travels in a batch."""
    data = np.frombuffer(encoded_id(name), np.uint8)
    out[:] = 0
    out[: data.size] = data


def read_ids(ids: np.ndarray) -> list[str]:
    """The texts behind `uint8 [n, 96]`; rows that pad a batch are empty."""
    return [bytes(row).rstrip(b"\0").decode() for row in np.asarray(ids)]


def option_row(
    query: np.ndarray, separator: Sequence[int], choice: np.ndarray, config: QuestionConfig
) -> tuple[np.ndarray, bool]:
    """`int64 [n <= text_length]`: question, separator, option and MASK; and whether something had to be cut."""
    room = config.text_length - 1
    over = query.size + len(separator) + choice.size - room
    if over > 0 and config.cut == "question":
        query = query[over:]
    body = np.concatenate([query, np.array(separator, _INTEGERS), choice])[:room]
    return np.append(body, MASK), over > 0


def write_picture(jpeg: bytes, config: QuestionConfig, streams: Streams, out: np.ndarray) -> None:
    """Write a JPEG as patches `[patches, values]`, scaled at random in training (spec shards.md 6)."""
    image = images.decode(jpeg)
    if config.turn_portraits:
        image = images.turn(image)
    target = (config.grid[0] * config.patch_size, config.grid[1] * config.patch_size)
    rng = streams("image") if config.scaling else None
    placement = images.place(*image.shape[:2], target, config.scaling, rng)
    bits = out.view(np.uint16) if config.image_dtype == "bfloat16" else out
    images.write_patches(image, placement, config.grid, config.patch_size, bits)


def empty(spec: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> Arrays:
    """Arrays of one example, to be filled."""
    return {name: np.zeros(shape, dtype) for name, (shape, dtype) in spec.items()}


def fixed(purpose: str) -> np.random.Generator:
    """The same stream for every record, as evaluation needs."""
    return generator(0, purpose)
