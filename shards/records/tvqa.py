"""The TVQA record: five answers about a clip of at most seven segments with sound and subtitles.

It is the clip record of `shards.records.choices` with the published sizes (docs/spec/finetune_data.md 3.7, 3.8).
"""

from __future__ import annotations

from typing import Any

from shards.records import choices
from shards.records.choices import ClipParser, ClipRecord
from shards.records.question_config import TvqaConfig

OPTIONS = 5
SEGMENTS = 7


class TvqaParser(ClipParser):
    """Parses a TVQA record into arrays."""


def parse_record(data: bytes) -> ClipRecord:
    """Parse the bytes of a record. Raises `RecordError` naming the feature that is missing or invalid."""
    return choices.parse_record(data, OPTIONS)


def serialize(record: ClipRecord) -> bytes:
    """Return the bytes of a record in the published form, with seven segments."""
    return record.serialize(SEGMENTS)


def parse(record: bytes, config: TvqaConfig) -> dict[str, Any]:
    """Return the arrays of one record without augmentation, and `id` as text. Raises `RecordError`."""
    return choices.parse(record, config)
