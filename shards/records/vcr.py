"""The VCR record: an image with its objects drawn in, a question, four answers and four rationales.

Serialization, parsing, and the arrays of `train.tasks.vcr` (docs/spec/finetune_data.md 2.7, 2.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from shards.records import example
from shards.records.parser import Arrays, Streams
from shards.records.question_config import VcrConfig
from shards.records.question_rows import (
    ID_BYTES,
    Fields,
    empty,
    encoded_id,
    fixed,
    option_row,
    scalar,
    write_id,
    write_picture,
)

CHOICES = 4
PREFIXES = ("qa", "qar")
"""Question to answer, and question and answer to rationale."""


@dataclass(frozen=True)
class Choice:
    """One of the two tasks of a question: its query, the options, and the number of the correct one."""

    query: Int64[np.ndarray, "tokens"]
    options: tuple[Int64[np.ndarray, "tokens"], ...]
    label: int


@dataclass(frozen=True)
class VcrRecord:
    """One question: the image and its mirror image as JPEG, and both tasks."""

    id: str
    image: bytes
    mirrored: bytes
    answer: Choice
    rationale: Choice

    def serialize(self) -> bytes:
        """Return the bytes of the record."""
        features: dict[str, list[bytes] | np.ndarray] = {
            "id": [encoded_id(self.id)],
            "image": [self.image],
            "image_fliplr": [self.mirrored],
        }
        for prefix, choice in zip(PREFIXES, (self.answer, self.rationale), strict=True):
            features[f"{prefix}_query"] = choice.query.astype(np.int64)
            features[f"{prefix}_label"] = scalar(choice.label)
            for i, option in enumerate(choice.options):
                features[f"{prefix}_choice_{i}"] = option.astype(np.int64)
        return example.serialize(features)


def parse_record(data: bytes) -> VcrRecord:
    """Parse the bytes of a record. Raises `RecordError` naming the feature that is missing or invalid."""
    fields = Fields(example.parse(data))
    image, mirrored = fields.bytes("image"), fields.bytes("image_fliplr")
    return VcrRecord(fields.id(), image, mirrored, *(_parse_choice(fields, prefix) for prefix in PREFIXES))


def _parse_choice(fields: Fields, prefix: str) -> Choice:
    options = tuple(fields.text(f"{prefix}_choice_{i}") for i in range(CHOICES))
    return Choice(fields.text(f"{prefix}_query"), options, fields.label(f"{prefix}_label", CHOICES))


class VcrParser:
    """Parses a record into `image [patches, values]`, `answers [2, 4, text_length]`, `labels [2]` and `id`."""

    def __init__(self, config: VcrConfig):
        self.config = config

    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return shape and dtype of every array of one example."""
        c = self.config
        return {
            "image": (c.patches, c.floats),
            "answers": ((len(PREFIXES), CHOICES, c.text_length), np.dtype(np.int32)),
            "labels": ((len(PREFIXES),), np.dtype(np.int32)),
            "id": ((ID_BYTES,), np.dtype(np.uint8)),
        }

    def __call__(self, payload: bytes, streams: Streams, out: Arrays) -> dict[str, int]:
        """Fill the arrays of one question and return the number of cut options."""
        c, record = self.config, parse_record(payload)
        mirrored = c.training and c.mirror and bool(streams("mirror").random() < 0.5)
        write_picture(record.mirrored if mirrored else record.image, c, streams, out["image"])
        write_id(record.id, out["id"])
        out["answers"][:] = 0
        cut = 0
        separators = (c.answer_separator, c.rationale_separator)
        for task, (choice, separator) in enumerate(zip((record.answer, record.rationale), separators, strict=True)):
            out["labels"][task] = choice.label
            for i, option in enumerate(choice.options):
                row, was_cut = option_row(choice.query, separator, option, c)
                out["answers"][task, i, : row.size] = row
                cut += was_cut
        return {"cut_options": cut}


def parse(record: bytes, config: VcrConfig) -> dict[str, Any]:
    """Return the arrays of one record without augmentation, and `id` as text. Raises `RecordError`."""
    parser = VcrParser(config)
    out: dict[str, Any] = empty(parser.spec())
    parser(record, fixed, out)
    return out | {"id": bytes(out["id"]).rstrip(b"\0").decode()}
