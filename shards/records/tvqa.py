"""The TVQA record: five answers about a clip of at most seven segments with sound and subtitles.

It is the clip record of `shards.records.choices` in its published sizes (docs/spec/finetune_data.md 3.7, 3.8).
"""

from __future__ import annotations

from typing import Any

from shards.records import choices
from shards.records.choices import ClipParser, ClipRecord
from shards.records.question_config import TvqaConfig

OPTIONS = 5
SEGMENTS = 7


class TvqaParser(ClipParser):
    """Makes the arrays of one TVQA record."""


def parse_record(data: bytes) -> ClipRecord:
    """The record behind the bytes. Raises `RecordError` naming the feature that is missing or wrong."""
    return choices.parse_record(data, OPTIONS)


def serialize(record: ClipRecord) -> bytes:
    """The record's bytes in the published form, with seven segments."""
    return record.serialize(SEGMENTS)


def parse(record: bytes, config: TvqaConfig) -> dict[str, Any]:
    """The arrays of one record as evaluation reads them, and `id` as text. Raises `RecordError`."""
    return choices.parse(record, config)
