"""Show one example: its videos, and the words, times and image sizes of every segment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from shards.dataset.location import DataSet
from shards.dataset.manifest import index_path, stats_path
from shards.inspection import drawing
from shards.inspection.plain_table import PlainTable
from shards.records import tfrecord
from shards.records.pretraining import Example, parse_example
from shards.storage import filesystem
from shards.storage.errors import RecordError, StorageError, UsageError

Decode = Callable[[Iterable[int]], str]
"""Converts token ids to text."""

_PICTURE_COLUMNS = 32


def find(data: DataSet, number: int) -> tuple[str, int]:
    """Return shard path and record number of example `number`, counting through the shards in order.

    Raises `UsageError` if there is no such example.
    """
    record = number
    for path, count in zip(data.shards, _counts(data), strict=True):
        if 0 <= record < count:
            return path, record
        record -= count
    raise UsageError(f"there is no example {number}; the data set has {sum(_counts(data))}")


def find_video(data: DataSet, video_id: str) -> tuple[str, int]:
    """Return shard path and record number of the first example with the video.

    Reads the sidecars, and shards without a sidecar. Raises `UsageError` if no example contains the video.
    """
    for path in data.shards:
        for record, videos in enumerate(_videos(path)):
            if video_id in videos:
                return path, record
    raise UsageError(f"no example contains the video {video_id!r}; the ledger has its outcome")


def _counts(data: DataSet) -> list[int]:
    if data.manifest:
        return [data.claims[path].examples for path in data.shards]
    return [len(record_offsets(path)) - 1 for path in data.shards]


def _videos(path: str) -> Iterator[set[str]]:
    """Yield the ids of the videos in each example of a shard."""
    try:
        content = json.loads(filesystem.read_bytes(stats_path(path)))
        yield from [{run[0] for run in group} for group in content["runs"]]
    except (StorageError, ValueError, LookupError, TypeError):
        with filesystem.open_read(path) as file:
            for _, payload in tfrecord.scan(file, path):
                yield {placed.text.video_id for placed in parse_example(payload).segments}


def read_payload(path: str, record: int) -> bytes:
    """Return the bytes of one record of a shard. Raises `RecordError` if it is damaged or does not exist."""
    offsets = record_offsets(path)
    if not 0 <= record < len(offsets) - 1:
        raise RecordError(f"{path} has no record {record}; it has {len(offsets) - 1}")
    start, stop = offsets[record], offsets[record + 1]
    return tfrecord.unframe(filesystem.read_bytes(path, start, stop - start), f"{path} at byte {start}")


def record_offsets(path: str) -> list[int]:
    """Return the offsets of the records of a shard and its length, from the index or by reading the shard."""
    index = index_path(path)
    if filesystem.exists(index):
        return np.frombuffer(filesystem.read_bytes(index), "<u8").tolist()
    with filesystem.open_read(path) as file:
        return [*(offset for offset, _ in tfrecord.scan(file, path)), filesystem.size(path)]


def example_table(path: str, record: int, example: Example, decode: Decode, pictures: bool) -> Table:
    """Return a table of the example's segments with their words, and frames and spectrograms as coloured blocks."""
    table = PlainTable(title=f"record {record} of {path}", show_lines=True)
    for column in ("segment", "video", "time (s)", "speed", "frame", "sound peak", "words"):
        table.add_column(column, overflow="fold", ratio=8 if column == "words" else None)
    if pictures:
        table.add_column("picture and sound", no_wrap=True)
    for i, placed in enumerate(example.segments):
        segment, text = placed.segment, placed.text
        title = f"\n{decode(text.title)}" if text.title else ""
        row: list[RenderableType] = [
            str(i),
            Text(f"{text.video_id}{title}"),
            f"{segment.start:.2f}-{segment.end:.2f}",
            f"{segment.speed}x",
            f"{segment.width}x{segment.height}\n{len(segment.image) / 1000:.1f} kB",
            f"{255 / segment.magic:.1f}",
            Text(decode(segment.tokens.tolist())),
        ]
        if pictures:
            drawn = (drawing.frame(segment), drawing.spectrogram(segment))
            row.append(Text("\n").join(drawing.blocks(picture, _PICTURE_COLUMNS) for picture in drawn))
        table.add_row(*row)
    return table
