"""Read lists of videos: one id or URL per line, or a table in any common format.

No row is dropped silently: an entry that is not a video is returned as it is, and gets its own outcome.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ingest.folders import printable
from ingest.ids import refusal, video_id
from ingest.raw import RawError
from shards.outcomes import Outcome
from shards.storage import filesystem
from shards.storage.errors import StorageError
from shards.storage.randomness import digest

COLUMN = "video_id"
_COLUMNS = (
    *(COLUMN, "videoid", "youtube_id", "youtubeid", "youtube_video_id", "yt_id", "ytid", "video_ids", "youtube_ids"),
    *("video_url", "youtube_url", "youtube_link", "video_link", "watch_url", "webpage_url", "original_url"),
    *("url", "link", "address", "href", "id", "ids", "vid", "video", "youtube", "videos", "urls", "links"),
)
"""Names of a column of ids or addresses, in lower case, the surest first."""

_DELIMITERS = (",", "\t", ";", "|")
_SAMPLE_ROWS = 100
_PIECE_BYTES = 1 << 20
_LINE_CHARACTERS = 1 << 20
"""A longer line is read as several."""

_OPEN_LINES = 500
"""Maximum number of lines of a quoted field; a longer one is a quote that was never closed."""

_SHARE = 0.9
"""A column is one of ids or addresses if so many of its values are."""

_WORD = re.compile(r"[a-z_]{11}")
"""What might be an id, but is a word where it starts a column of ids: `description`."""

_REMARK = re.compile(r"\s#.*")


@dataclass(frozen=True)
class Table:
    """How a list is a table: by which delimiter, which column is read (`None`: each), and the number of its columns.

    `name` is that of the column, empty in a table without a header.
    """

    delimiter: str
    column: int | None
    columns: int
    name: str = ""


def read_entries(path: str) -> Iterator[str]:
    """Yield the entries of a list of any length, in order, repeated ones too.

    Raises `RawError` if the list cannot be read, is empty, or is a table without a column of ids or addresses.
    """
    try:
        encoding = _encoding(path)
        with filesystem.open_read(path) as file:
            listed = entries(_lines(io.TextIOWrapper(file, encoding, errors="replace")), path)
            first = next(listed, None)
            if first is None:
                raise RawError(f"the list of ids {path!r} is empty")
            yield first
            yield from listed
    except StorageError as error:
        raise RawError(f"the list of ids cannot be read: {error}") from None


def column_note(path: str) -> str | None:
    """Return a note about the column that is read; `None` for a plain list, and for `video_id` in a CSV.

    Raises `RawError` as `read_entries` does.
    """
    try:
        with filesystem.open_read(path) as file:
            lines = _lines(io.TextIOWrapper(file, _encoding(path), errors="replace"))
            table, _ = _table_of(list(itertools.islice(_filled(lines), _SAMPLE_ROWS)), path)
    except StorageError as error:
        raise RawError(f"the list of ids cannot be read: {error}") from None
    if table is None or (table.name == COLUMN and table.delimiter == ","):
        return None
    if table.name:
        column = f"column {table.name!r}"
    else:
        column = "every column" if table.column is None else f"column {table.column + 1}, as there is no header"
    return f"the list {path!r} is read as a table with {table.delimiter!r} between columns, by {column}"


def resolved(entry: str) -> tuple[str, Outcome | None, str]:
    """Return the id that an entry names; or a name for it, the outcome that it has instead of a video, and why."""
    if (named := video_id(entry)) is not None:
        return named, None, ""
    outcome, detail = refusal(entry)
    return _named(entry), outcome, detail


def _named(entry: str) -> str:
    """Return an entry that names no video as an id of limited length that can be printed."""
    name = printable(entry)
    return name if len(name) <= 200 else f"{name[:180]}~{digest(0, 'entry', entry).hex()[:16]}"


def _encoding(path: str) -> str:
    """How a list is encoded: UTF-8, UTF-16 by its mark, else Windows-1252, going by its first megabyte."""
    with filesystem.open_read(path) as file:
        piece = file.read(_PIECE_BYTES)
    if piece[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8-sig")().decode(piece)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a text, whichever of the three line ends it has, without NULs, of limited length."""
    while line := text.readline(_LINE_CHARACTERS):
        yield line.replace("\0", "").rstrip("\n")


def _filled(lines: Iterator[str]) -> Iterator[str]:
    """Return the lines before and after comments; blank ones inside a quoted field count for nothing there either."""
    return (line for line in lines if line.strip() and not line.lstrip("\ufeff \t").startswith("#"))


def entries(lines: Iterator[str], path: str) -> Iterator[str]:
    """Yield what the lines of a list name, repeated entries too.

    Raises `RawError` for a table without a column of ids.
    """
    filled = _filled(lines)
    sample = list(itertools.islice(filled, _SAMPLE_ROWS))
    table, start = _table_of(sample, path)
    rest = itertools.chain(sample[start:], filled)
    if table is None:
        # A plain list ends its lines wherever Unicode has an end of a line.
        plain = (_REMARK.sub("", piece).strip() for line in rest for piece in line.splitlines())
        yield from (entry for entry in plain if entry)
        return
    for row, line in _rows(rest, table):
        if table.column is None:
            yield from (field.strip() for field in row if field.strip())
        elif len(row) > table.column:
            # A row without an entry, such as a total, is not a video; one without the column is damaged.
            yield from filter(None, [row[table.column].strip()])
        elif any(field.strip() for field in row):
            yield line.strip()


def _table_of(sample: list[str], path: str) -> tuple[Table | None, int]:
    """How the first lines of a list are a table, and the number of its header lines; `None` for a plain list."""
    if not sample:
        return None, 0
    headers = {delimiter: _fields(sample[0], delimiter) for delimiter in _DELIMITERS}
    for delimiter, header in headers.items():
        if len(header) > 1 and (place := _known_column(header, sample[1:], delimiter)) is not None:
            return Table(delimiter, place, len(header), header[place].strip()), 1
    if _spelled(sample[0]) in _COLUMNS:
        return Table(_DELIMITERS[0], 0, 1, sample[0].strip()), 1
    delimiter, header = max(headers.items(), key=lambda item: len(item[1]))
    if len(header) == 1 or 2 * sum(video_id(line) is not None for line in sample) >= len(sample):
        return None, 0
    return _table_by_values(sample, delimiter, header, path)


def _known_column(header: list[str], sample: list[str], delimiter: str) -> int | None:
    """Return the column with a known name.

    Of several, the one most of whose values name a video, then the surest name.
    """
    names = [_spelled(name) for name in header]
    if COLUMN in names:
        return names.index(COLUMN)
    places = [names.index(name) for name in _COLUMNS if name in names]
    shares = _shares(sample, delimiter, places)
    if not places or (sample and not any(shares.values())):
        return None
    return max(places, key=lambda place: (shares[place], -places.index(place)))


def _table_by_values(sample: list[str], delimiter: str, header: list[str], path: str) -> tuple[Table | None, int]:
    """Return a table without a known column name; its column is the one whose values name videos.

    Raises `RawError` if no line has any value that does.
    """
    places = range(len(header))
    shares = _shares(sample, delimiter, places)
    if all(share == 1 for share in shares.values()):
        return Table(delimiter, None, len(header)), 0
    full = [place for place in places if shares[place] == 1]
    if full and not (len(sample) > 1 and _WORD.fullmatch(header[full[0]].strip())):
        return Table(delimiter, full[0], len(header)), 0
    below = _shares(sample[1:], delimiter, places)
    if full := [place for place in places if below[place] >= _SHARE]:
        return Table(delimiter, full[0], len(header), header[full[0]].strip()), 1
    if any(shares.values()):
        # Lines of a plain list, some with a comma in them.
        return None, 0
    names = ", ".join(name.strip() for name in header)[:200]
    raise RawError(f"the CSV {path!r} has no column {COLUMN!r}; it has {names}, and no values that name videos")


def _shares(sample: list[str], delimiter: str, places: Iterable[int]) -> dict[int, float]:
    """Return which share of the values in each column names a video."""
    rows = [_fields(line, delimiter) for line in sample]
    shares = {}
    for place in places:
        values = [row[place] for row in rows if len(row) > place and row[place].strip()]
        shares[place] = sum(video_id(value) is not None for value in values) / len(values) if values else 0.0
    return shares


def _rows(lines: Iterator[str], table: Table) -> Iterator[tuple[list[str], str]]:
    """Yield the rows of a table, each with the line that it starts with.

    A quote that is never closed costs no other row.
    """
    waiting: deque[str] = deque()
    while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
        row = _strictly([line], table.delimiter)
        if row is None and line.count('"') % 2:
            more = _until_closed(line, waiting, lines)
            row = _strictly([line, *more], table.delimiter)
            if row is None or len(row) != table.columns:
                row = None
            else:
                for _ in more:
                    waiting.popleft()
        yield row if row is not None else _loosely(line, table.delimiter), line


def _until_closed(line: str, waiting: deque[str], lines: Iterator[str]) -> list[str]:
    """Return the lines after `line` up to the one that closes its quote, all of which are in `waiting` then."""
    more: list[str] = []
    while len(more) < _OPEN_LINES:
        if len(waiting) == len(more):
            following = next(lines, None)
            if following is None:
                break
            waiting.append(following)
        more.append(waiting[len(more)])
        if more[-1].count('"') % 2:
            break
    return more


def _fields(line: str, delimiter: str) -> list[str]:
    """Return the fields of one line."""
    row = _strictly([line], delimiter)
    return row if row is not None else _loosely(line, delimiter)


def _strictly(lines: list[str], delimiter: str) -> list[str] | None:
    """Return the fields of one row, which may be of several lines; `None` if they are not one well formed row."""
    try:
        rows = list(
            csv.reader([f"{line}\n" for line in lines], delimiter=delimiter, strict=True, skipinitialspace=True)
        )
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _loosely(line: str, delimiter: str) -> list[str]:
    """Return the fields of a line whose quotes mean nothing, or that is too long for the parser."""
    return [field.strip().strip('"') for field in line.split(delimiter)]


def _spelled(name: str) -> str:
    """Return the name of a column as `_COLUMNS` spells it."""
    return re.sub(r"[\s_-]+", "_", name.strip().strip("\ufeff\"'").lower())
