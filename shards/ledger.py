"""What became of every item: one line per outcome, appended and never changed.

Each process appends to a file of its own, so that lines never mix; of several lines for one item the newest counts. A
line torn by a killed process is skipped, and its item simply runs again. A part of a large data set has a folder of its
own in the ledger while it is worked on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from shards import filesystem

FOLDER = "ledger"
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Entry:
    """One item's outcome.

    `outcome` and `kind` are names of `ingest.outcomes`; `detail` is the sentence with what is special to this item;
    `scores` every number a filter looked at; `segments` how many were committed; `video_seconds` its duration,
    `cpu_seconds` the cost; `at` seconds since 1970.
    """

    id: str
    outcome: str
    kind: str
    detail: str = ""
    scores: dict[str, Any] = field(default_factory=dict)
    split: str = "train"
    segments: int = 0
    video_seconds: float = 0.0
    cpu_seconds: float = 0.0
    at: float = 0.0


_NAMES = frozenset(f.name for f in dataclasses.fields(Entry))


class Ledger:
    """The ledger of a data folder, or a part of it, written by this process under `writer`, which no other one uses."""

    def __init__(self, data: str, writer: str = "main", part: str | None = None):
        self.folder = filesystem.join(data, FOLDER, *([part] if part else []))
        self._file = filesystem.join(self.folder, f"{writer}{SUFFIX}")
        self._closed = closed_path(data, part) if part else None

    def append(self, entry: Entry) -> None:
        """Record an outcome; it is on the disk when this returns."""
        line = json.dumps(dataclasses.asdict(entry), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        filesystem.append_line(self._file, line.encode())

    def files(self) -> list[str]:
        """Every file of lines, those of parts that are worked on last; of a part, first the one it was closed in."""
        closed = [self._closed] if self._closed and filesystem.exists(self._closed) else []
        folders = [filesystem.join(self.folder, name) for name in filesystem.list_folders(self.folder)]
        opened = [path for folder in (self.folder, *folders) for path in filesystem.list_files(folder, SUFFIX)]
        return closed + opened

    def entries(self) -> dict[str, Entry]:
        """The newest entry of every item, keyed by id."""
        return newest(entry for path in self.files() for entry in read_lines(path))

    def own_entries(self) -> dict[str, Entry]:
        """The newest entries among those that were written under this name."""
        return newest(read_lines(self._file)) if filesystem.exists(self._file) else {}


def closed_path(data: str, part: str) -> str:
    """The one file that the lines of a part are in when it is closed."""
    return filesystem.join(data, FOLDER, f"{part}{SUFFIX}")


def newest(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The newest entry of every item, keyed by id; of two of one moment the later."""
    found: dict[str, Entry] = {}
    for entry in entries:
        held = found.get(entry.id)
        if held is None or entry.at >= held.at:
            found[entry.id] = entry
    return found


def read_lines(path: str) -> Iterator[Entry]:
    """The entries of a ledger file, read as a stream."""
    with filesystem.open_read(path) as file:
        for line in file:
            yield from parse_lines(line)


def parse_lines(data: bytes) -> Iterator[Entry]:
    """Entries of a ledger file's content; lines that are torn or foreign are passed over."""
    for line in data.split(b"\n"):
        try:
            values = json.loads(line)
            entry = Entry(**{name: value for name, value in values.items() if name in _NAMES})
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
        if isinstance(entry.id, str) and isinstance(entry.at, int | float):
            yield entry
