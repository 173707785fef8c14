"""Lists of video ids, as people write them: a CSV with a `video_id` column, or one id or address a line."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from ingest.raw import RawError
from shards import filesystem
from shards.errors import StorageError

_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_HOSTS = frozenset(("youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "www.youtube-nocookie.com"))
_PATHS = frozenset(("shorts", "embed", "live", "v"))
COLUMN = "video_id"
_PIECE_BYTES = 1 << 20


def read_entries(path: str) -> Iterator[str]:
    """The entries of a list of any length, in order, repeated ones too; a line ends wherever Unicode has one end.

    Raises `RawError` if the list cannot be read, is empty, or is a CSV without the column.
    """
    try:
        encoding = _encoding(path)
        with filesystem.open_read(path) as file:
            text = io.TextIOWrapper(file, encoding, errors="replace")
            listed = entries(itertools.chain.from_iterable(map(str.splitlines, text)), path)
            first = next(listed, None)
            if first is None:
                raise RawError(f"the list of ids {path!r} is empty")
            yield first
            yield from listed
    except StorageError as error:
        raise RawError(f"the list of ids cannot be read: {error}") from None


def _encoding(path: str) -> str:
    """How a list is encoded: UTF-8 or UTF-16 by their marks, else Latin-1, going by its first megabyte."""
    with filesystem.open_read(path) as file:
        piece = file.read(_PIECE_BYTES)
    if piece[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8-sig")().decode(piece)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def entries(lines: Iterator[str], path: str) -> Iterator[str]:
    """What the lines of a list name, repeated entries too. Raises `RawError` for a CSV without the column."""
    filled = (line for line in lines if line.strip())
    first = next(filled, "")
    header = [name.strip() for name in next(csv.reader([first]), [])]
    if COLUMN in header:
        place = header.index(COLUMN)
        rows = (row[place].strip() for row in csv.reader(filled) if len(row) > place)
        yield from (entry for entry in rows if entry)
    elif len(header) > 1:
        raise RawError(f"the CSV {path!r} has no column {COLUMN!r}; it has {', '.join(header)[:200]}")
    else:
        listed = itertools.chain([first], filled)
        yield from (line.strip() for line in listed if line and not line.lstrip().startswith("#"))


def video_id(entry: str) -> str | None:
    """The id that an entry names, itself or as an address of YouTube; `None` if it names none."""
    if _ID.fullmatch(entry):
        return entry
    try:
        parts = urlsplit(entry if "//" in entry else f"https://{entry}")
    except ValueError:
        return None
    first, _, rest = parts.path.strip("/").partition("/")
    if parts.hostname == "youtu.be":
        candidate = first
    elif parts.hostname in _HOSTS:
        candidate = rest.split("/")[0] if first in _PATHS else parse_qs(parts.query).get("v", [""])[0]
    else:
        return None
    return candidate if _ID.fullmatch(candidate) else None
