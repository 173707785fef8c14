"""Common parts of question-answering records: feature access, token rows of options, images.

A question becomes one row of tokens per option: question, separator, option, MASK. The classifier reads the output of
the network at the MASK (docs/spec/finetune_data.md 2.8, 3.8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from shards.arrays import images
from shards.records.example import Feature
from shards.records.parser import Arrays, Streams
from shards.records.question_config import QuestionConfig
from shards.storage.errors import RecordError
from shards.storage.randomness import generator
from shards.tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PADDING

ID_BYTES = 96
"""Maximum length of a question's id in bytes of UTF-8."""

_INTEGERS = np.dtype(np.int64)
_NOT_IN_TEXT = np.array([PADDING, MASK, MASKAUDIO, AUDIOSPAN, LTOVPOOL])


class Fields:
    """Typed access to the features of a question: each method checks type and number of the values."""

    def __init__(self, features: Mapping[str, Feature]):
        self.features = features

    def bytes(self, name: str) -> bytes:
        """Return the only string of a feature. Raises `RecordError` if there is not exactly one."""
        values = self._get(name)
        if not isinstance(values, list) or len(values) != 1:
            raise RecordError(f"the feature {name!r} must have exactly one string")
        return values[0]

    def id(self) -> str:
        """Return the id of the question."""
        try:
            return self.bytes("id").decode()
        except UnicodeDecodeError:
            raise RecordError("the feature 'id' is not UTF-8") from None

    def text(self, name: str) -> Int64[np.ndarray, "tokens"]:
        """Return the token ids of a feature. Raises `RecordError` for ids that do not occur in text."""
        values = self._get(name)
        if isinstance(values, list) and not values:
            return np.zeros(0, _INTEGERS)
        if isinstance(values, list) or (values.size and values.dtype.kind != "i"):
            raise RecordError(f"the feature {name!r} has values of another type")
        if values.size and (values.min() < 0 or np.isin(values, _NOT_IN_TEXT).any()):
            raise RecordError(f"the text {name!r} contains padding or a mask token")
        return values.astype(_INTEGERS)

    def number(self, name: str) -> float | int:
        """Return the only number of a feature. Raises `RecordError` if there is not exactly one."""
        values = self._get(name)
        if isinstance(values, list) or values.size != 1:
            raise RecordError(f"the feature {name!r} must have exactly one number")
        return values[0].item()

    def label(self, name: str, options: int) -> int:
        """Return the number of the correct option. Raises `RecordError` if it is out of range."""
        label = self.number(name)
        if label not in range(options):
            raise RecordError(f"{name} is {label} and there are {options} options")
        return int(label)

    def _get(self, name: str) -> Feature:
        try:
            return self.features[name]
        except KeyError:
            raise RecordError(f"the feature {name!r} is missing: this is a record of another kind") from None


def scalar(value: int) -> Int64[np.ndarray, "1"]:
    """Return an integer as a feature."""
    return np.array([value], _INTEGERS)


def encoded_id(name: str) -> bytes:
    """Return an id as a feature. Raises `ValueError` if it is empty or longer than `ID_BYTES`."""
    data = name.encode()
    if not 0 < len(data) <= ID_BYTES:
        raise ValueError(f"the id {name[:40]!r} has {len(data)} bytes; it must have 1 to {ID_BYTES}")
    return data


def write_id(name: str, out: UInt8[np.ndarray, "96"]) -> None:
    """Write the bytes of an id into an array of a batch, padded with zeros."""
    data = np.frombuffer(encoded_id(name), np.uint8)
    out[:] = 0
    out[: data.size] = data


def read_ids(ids: UInt8[np.ndarray, "batch 96"]) -> list[str]:
    """Return the ids of a batch as text; padding rows have an empty id."""
    return [bytes(row).rstrip(b"\0").decode() for row in np.asarray(ids)]


def option_row(
    query: Int64[np.ndarray, "query"],
    separator: Sequence[int],
    choice: Int64[np.ndarray, "choice"],
    config: QuestionConfig,
) -> tuple[Int64[np.ndarray, "tokens"], bool]:
    """Return question, separator, option and MASK, at most `text_length` tokens, and whether any were cut."""
    length = config.text_length - 1
    excess = query.size + len(separator) + choice.size - length
    if excess > 0 and config.cut == "question":
        query = query[excess:]
    body = np.concatenate([query, np.array(separator, _INTEGERS), choice])[:length]
    return np.append(body, MASK), excess > 0


def write_picture(
    jpeg: bytes, config: QuestionConfig, streams: Streams, out: Shaped[np.ndarray, "patches values"]
) -> None:
    """Write a JPEG as patches, scaled at random in training (docs/spec/shards.md 6)."""
    image = images.decode(jpeg)
    if config.turn_portraits:
        image = images.turn(image)
    target = (config.grid[0] * config.patch_size, config.grid[1] * config.patch_size)
    rng = streams("image") if config.scaling else None
    placement = images.place(image.shape[0], image.shape[1], target, config.scaling, rng)
    bits = out.view(np.uint16) if config.image_dtype == "bfloat16" else out
    images.write_patches(image, placement, config.grid, config.patch_size, bits)


def empty(spec: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> Arrays:
    """Return zero-filled arrays of one example."""
    return {name: np.zeros(shape, dtype) for name, (shape, dtype) in spec.items()}


def fixed(purpose: str) -> np.random.Generator:
    """Return the same random generator for every record, for deterministic evaluation."""
    return generator(0, purpose)
