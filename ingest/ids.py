"""Lists of video ids, as people write them: a CSV with a `video_id` column, or one id or address a line."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from ingest.raw import RawError, decode_text
from shards import filesystem
from shards.errors import StorageError

_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_HOSTS = frozenset(("youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "www.youtube-nocookie.com"))
_PATHS = frozenset(("shorts", "embed", "live", "v"))
COLUMN = "video_id"


@dataclass(frozen=True)
class IdList:
    """The ids of a list in order, each once, and the entries that are no ids."""

    ids: list[str]
    bad: list[str]


def read_ids(path: str) -> IdList:
    """The ids in a file. Raises `RawError` if it cannot be read, is empty, or is a CSV without the column."""
    try:
        text = decode_text(filesystem.read_bytes(path))
    except StorageError as error:
        raise RawError(f"the list of ids cannot be read: {error}") from None
    found = {entry: video_id(entry) for entry in entries(iter(text.splitlines()), path)}
    if not found:
        raise RawError(f"the list of ids {path!r} is empty")
    return IdList(
        list(dict.fromkeys(i for i in found.values() if i)),
        [entry for entry, i in found.items() if i is None],
    )


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
