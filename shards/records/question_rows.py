"""What the records of all question-answering tasks share: their features, their options as tokens, their pictures.

A question becomes one row of tokens for each of its options: question, separator, option, MASK. The classifier reads
the network's output at the MASK (docs/spec/finetune_data.md 2.8, 3.8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from shards.arrays import images
from shards.records.example import Feature
from shards.records.parser import Arrays, Streams
from shards.records.question_config import QuestionConfig
from shards.storage.errors import RecordError
from shards.storage.randomness import generator
from shards.tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PADDING

ID_BYTES = 96
"""Longest id of a question, in bytes of UTF-8."""

_INTEGERS = np.dtype(np.int64)
_NOT_IN_TEXT = np.array([PADDING, MASK, MASKAUDIO, AUDIOSPAN, LTOVPOOL])


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
    """Write a JPEG as patches `[patches, values]`, scaled at random in training (docs/spec/shards.md 6)."""
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
