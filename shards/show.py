"""One example as a person would read it: its videos, and the words, times and pictures' sizes of every segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from shards import filesystem, tfrecord
from shards.dataset import DataSet
from shards.errors import UsageError
from shards.manifest import index_path
from shards.records.pretraining import Example, parse_example

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_example(data: DataSet, number: int) -> tuple[str, Example]:
    """The shard's path and the example with this number, counting through the shards in order.

    Raises `UsageError` if there is no such example, `RecordError` if it is damaged.
    """
    left = number
    for path in data.shards:
        offsets = record_offsets(path)
        if 0 <= left < len(offsets) - 1:
            start, stop = offsets[left], offsets[left + 1]
            framed = filesystem.read_bytes(path, start, stop - start)
            return path, parse_example(tfrecord.unframe(framed, f"{path} at byte {start}"))
        left -= len(offsets) - 1
    raise UsageError(f"there is no example {number}; the data set has {number - left}")


def record_offsets(path: str) -> list[int]:
    """Where the records of a shard start, and where the file ends: from the index, or by reading without one."""
    index = index_path(path)
    if filesystem.exists(index):
        return np.frombuffer(filesystem.read_bytes(index), "<u8").tolist()
    with filesystem.open_read(path) as file:
        return [*(offset for offset, _ in tfrecord.scan(file, path)), filesystem.size(path)]


def example_table(path: str, number: int, example: Example, tokenizer: Tokenizer) -> Table:
    """A table of the example's segments with their words."""
    table = Table(title=f"example {number} of {path}", show_lines=True)
    for column in ("segment", "video", "time (s)", "speed", "frame", "sound peak", "words"):
        table.add_column(column, overflow="fold", ratio=8 if column == "words" else None)
    for i, placed in enumerate(example.segments):
        segment, text = placed.segment, placed.text
        title = f"\n{tokenizer.decode(text.title).strip()}" if text.title else ""
        table.add_row(
            str(i),
            f"{text.video_id}{title}",
            f"{segment.start:.2f}-{segment.end:.2f}",
            f"{segment.speed}x",
            f"{segment.width}x{segment.height}\n{len(segment.image) / 1000:.1f} kB",
            f"{255 / segment.magic:.1f}",
            tokenizer.decode(segment.tokens.tolist()).strip(),
        )
    return table
