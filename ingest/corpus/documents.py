"""Read the documents of a text corpus from JSON lines, Parquet tables and plain text, compressed or not.

An invalid line affects that line alone and is counted by reason; memory is bounded by the maximum length of a line.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

import zstandard

from shards.storage import filesystem
from shards.storage.errors import StorageError

MAX_DOCUMENT_BYTES = 16 << 20
"""Maximum size of a line; longer ones are skipped."""

SUFFIXES = tuple(form + packing for form in (".jsonl", ".ndjson", ".txt") for packing in ("", ".gz", ".zst"))
SUFFIXES += (".parquet",)

_PIECE_BYTES = 1 << 20
_TABLE_ROWS = 64
_TABLE_BYTES = 16 << 20
"""Size of the batches in which the text of a table is decoded, by the sizes that the table states."""


def documents(path: str, subsets: Collection[str], counts: Counter[str]) -> Iterator[str]:
    """Yield the texts of a file whose name ends in one of `SUFFIXES`, without those of Pile subsets not in `subsets`.

    JSON lines and tables have a field `text`; plain text is split at blank lines. `counts` is incremented by the number
    of documents and, by reason, of skipped lines.
    """
    for text, subset in _texts(path, counts):
        if subset is not None and subset not in subsets:
            counts["other-subset"] += 1
        elif not text.strip():
            counts["empty"] += 1
        else:
            counts["documents"] += 1
            yield text


def _texts(path: str, counts: Counter[str]) -> Iterator[tuple[str, str | None]]:
    with filesystem.open_read(path) as file:
        try:
            if path.endswith(".parquet"):
                yield from _table(file, counts)
            else:
                with _unpacked(path, file) as plain:
                    is_text = path.removesuffix(".gz").removesuffix(".zst").endswith(".txt")
                    yield from _paragraphs(plain, counts) if is_text else _json_lines(plain, counts)
        except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError):
            # Documents before the damage count: the same bytes always end at the same position.
            counts["damaged-file"] += 1


@contextlib.contextmanager
def _unpacked(path: str, file: BinaryIO) -> Iterator[io.BufferedIOBase | BinaryIO]:
    if path.endswith(".gz"):
        with gzip.open(file) as plain:
            yield plain
    elif path.endswith(".zst"):
        # The Pile's files were made with a window of up to 128 MB.
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file, read_across_frames=True)
        with io.BufferedReader(reader, _PIECE_BYTES) as plain:
            yield plain
    else:
        yield file


def _lines(file: io.BufferedIOBase | BinaryIO, counts: Counter[str]) -> Iterator[bytes]:
    while line := file.readline(MAX_DOCUMENT_BYTES):
        if len(line) < MAX_DOCUMENT_BYTES or line.endswith(b"\n"):
            yield line
            continue
        counts["line-too-long"] += 1
        while line and not line.endswith(b"\n"):
            line = file.readline(_PIECE_BYTES)


def _json_lines(file: io.BufferedIOBase | BinaryIO, counts: Counter[str]) -> Iterator[tuple[str, str | None]]:
    for line in _lines(file, counts):
        if not line.strip():
            continue
        try:
            document = json.loads(_decoded(line, counts))
        except (ValueError, RecursionError):
            counts["bad-json"] += 1
            continue
        if not isinstance(document, dict) or not isinstance(document.get("text"), str):
            counts["no-text"] += 1
            continue
        meta = document.get("meta")
        subset = meta.get("pile_set_name") if isinstance(meta, dict) else None
        yield _encodable(document["text"], counts), subset if isinstance(subset, str) else None


def _paragraphs(file: io.BufferedIOBase | BinaryIO, counts: Counter[str]) -> Iterator[tuple[str, str | None]]:
    paragraph: list[bytes] = []
    size = 0
    for line in _lines(file, counts):
        if not line.strip() or size + len(line) > MAX_DOCUMENT_BYTES:
            if paragraph:
                yield _decoded(b"".join(paragraph), counts), None
            paragraph, size = [], 0
        if line.strip():
            paragraph.append(line)
            size += len(line)
    if paragraph:
        yield _decoded(b"".join(paragraph), counts), None


def _table(file: BinaryIO, counts: Counter[str]) -> Iterator[tuple[str, str | None]]:
    from pyarrow import ArrowException

    try:
        yield from _rows(file, counts)
    except (ArrowException, UnicodeDecodeError, OSError) as error:
        # The library raises `OSError` for damage as well, but without an errno.
        if isinstance(error, StorageError) or getattr(error, "errno", None) is not None:
            raise
        counts["damaged-file"] += 1


def _rows(file: BinaryIO, counts: Counter[str]) -> Iterator[tuple[str, None]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile, read_metadata

    metadata = read_metadata(file)
    if "text" not in {metadata.schema.column(i).path for i in range(metadata.num_columns)}:
        counts["no-text"] += max(metadata.num_rows, 0)
        return
    # Dictionary encoding is kept, so that a value is not copied for every row that refers to it.
    table = ParquetFile(file, metadata=metadata, buffer_size=_PIECE_BYTES, pre_buffer=False, read_dictionary=["text"])
    kind = table.schema_arrow.field("text").type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        counts["no-text"] += max(table.metadata.num_rows, 0)
        return
    for group in range(table.num_row_groups):
        stated = table.metadata.row_group(group)
        row_bytes = max(stated.total_byte_size // max(stated.num_rows, 1), 1)
        rows = min(max(_TABLE_BYTES // row_bytes, 1), _TABLE_ROWS)
        for batch in table.iter_batches(rows, row_groups=[group], columns=["text"]):
            yield from _values(batch.column(0), counts)


def _values(column: Any, counts: Counter[str]) -> Iterator[tuple[str, None]]:
    for scalar in column:
        value = getattr(scalar, "value", scalar)
        if not scalar.is_valid:
            counts["no-text"] += 1
        elif value.as_buffer().size > MAX_DOCUMENT_BYTES:
            counts["line-too-long"] += 1
        else:
            yield value.as_py(), None


def _decoded(data: bytes, counts: Counter[str]) -> str:
    """Decode UTF-8; invalid bytes are dropped."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        counts["invalid-utf8"] += 1
        return data.decode(errors="ignore")


def _encodable(text: str, counts: Counter[str]) -> str:
    """Return text without single surrogates, which JSON can contain and UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        counts["invalid-utf8"] += 1
        return text.encode(errors="ignore").decode()
    return text
