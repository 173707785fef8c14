"""The ledger: one JSON line per item with its outcome.

A generation of videos has its own ledger, written once, in parts of limited size. Question jobs append to one file per
process instead; the newest line of an item counts, and a line torn by a killed process is skipped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from shards.dataset.manifest import Generation, generation_folder
from shards.storage import filesystem
from shards.storage.errors import UserError

FOLDER = "ledger"
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Entry:
    """The outcome of one item."""

    id: str
    outcome: str
    """A name of `shards.outcomes.Outcome`."""
    kind: str
    """A name of `shards.outcomes.Kind`."""
    detail: str = ""
    """A sentence with the details of this item."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Every number that a filter evaluated."""
    split: str = "train"
    segments: int = 0
    """Number of committed segments."""
    video_seconds: float = 0.0
    """Duration of the video."""
    cpu_seconds: float = 0.0
    """CPU time spent on the item."""
    at: float = 0.0
    """Time of the outcome, in seconds since 1970."""
    earlier: str = ""
    """The outcome, as `kind/outcome`, of the entry in an earlier generation that this entry replaces."""
    version: str = ""
    """Changes when a file of the item does."""


_NAMES = frozenset(f.name for f in dataclasses.fields(Entry))


def line(entry: Entry) -> bytes:
    """Return an entry as a line of the ledger, without a line break."""
    text = json.dumps(dataclasses.asdict(entry), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def part_path(data: str, generation: Generation, number: int) -> str:
    """Return the path of one part of the ledger of a generation."""
    return filesystem.join(data, FOLDER, f"{generation.stem}-{number:05d}of{generation.ledger:05d}{SUFFIX}")


def parts_of(data: str, generation: Generation) -> list[str]:
    """Return the paths of all parts of the ledger of a generation."""
    folder = generation_folder(data, generation)
    return [part_path(folder, generation, number) for number in range(generation.ledger)]


def removals_path(data: str) -> str:
    """Return the path of the list of videos that were removed on request."""
    return filesystem.join(data, FOLDER, f"removals{SUFFIX}")


def read_removals(data: str) -> list[Entry]:
    """Read the entries of the videos that were removed on request. Raises `LedgerError` if the file is damaged."""
    path = removals_path(data)
    return removal_entries(filesystem.read_existing(path), path)


def removal_entries(content: bytes | None, path: str) -> list[Entry]:
    """Parse the content of the list of removed videos. Raises `LedgerError` if it is damaged."""
    return list(_whole_lines((content or b"").splitlines(keepends=True), path))


class LedgerError(UserError):
    """A file of the ledger that is written atomically is damaged; the message names the line."""


class Ledger:
    """The appendable ledger of a data folder; `writer` names the file of this process and must be unique."""

    def __init__(self, data: str, writer: str = "main"):
        self.folder = filesystem.join(data, FOLDER)
        self._file = filesystem.join(self.folder, f"{writer}{SUFFIX}")

    def append(self, entry: Entry) -> None:
        """Append an entry; it is durable when this returns."""
        filesystem.append_line(self._file, line(entry))

    def entries(self) -> dict[str, Entry]:
        """Return the newest entry of every item, keyed by id."""
        files = filesystem.list_files(self.folder, SUFFIX)
        return newest(entry for path in files for entry in read_lines(path))


def newest(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the newest entry of every item, keyed by id; the last one of entries with equal times."""
    by_id: dict[str, Entry] = {}
    for entry in entries:
        known = by_id.get(entry.id)
        if known is None or entry.at >= known.at:
            by_id[entry.id] = entry
    return by_id


def read_lines(path: str) -> Iterator[Entry]:
    """Yield the entries of an appendable ledger file."""
    with filesystem.open_read(path) as file:
        for line in file:
            yield from parse_lines(line)


def read_part(path: str) -> Iterator[Entry]:
    """Yield the entries of a file that is written atomically, such as a part of the ledger of a generation.

    Raises `LedgerError` for a line that is not an entry, so that no video is lost.
    """
    with filesystem.open_read(path) as file:
        yield from _whole_lines(file, path)


def _whole_lines(lines: Iterable[bytes], path: str) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        entries = list(parse_lines(line)) if line.endswith(b"\n") else []
        if not entries and line.strip():
            raise LedgerError(f"{path!r} is damaged: line {number} is {line[:60]!r}; restore the file")
        yield from entries


def parse_lines(data: bytes) -> Iterator[Entry]:
    """Yield the entries in the content of a ledger file; torn and unknown lines are skipped."""
    for line in data.split(b"\n"):
        try:
            values = json.loads(line)
            entry = Entry(**{name: value for name, value in values.items() if name in _NAMES})
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
        if isinstance(entry.id, str) and isinstance(entry.at, int | float):
            yield entry
