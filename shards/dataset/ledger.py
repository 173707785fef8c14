"""How every item ended: one JSON line per item.

A generation of videos has a ledger of its own, written once, in parts of limited size. Jobs of questions append to one
file per process instead; of several lines for one item the newest counts, and a line torn by a killed process is
skipped.
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
    """One item's outcome.

    `outcome` and `kind` are names of `shards.outcomes`; `detail` is the sentence with what is special to this item;
    `scores` every number a filter looked at; `segments` how many were committed; `video_seconds` its duration,
    `cpu_seconds` the cost; `at` seconds since 1970. `earlier` is how the item ended before, as `kind/outcome`, if this
    entry takes the place of one in another generation. `version` changes when a file of the item does.
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
    earlier: str = ""
    version: str = ""


_NAMES = frozenset(f.name for f in dataclasses.fields(Entry))


def line(entry: Entry) -> bytes:
    """An entry as a line of the ledger, without a line break."""
    text = json.dumps(dataclasses.asdict(entry), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def part_path(data: str, generation: Generation, number: int) -> str:
    """Where one of the parts of a generation's ledger is."""
    return filesystem.join(data, FOLDER, f"{generation.stem}-{number:05d}of{generation.ledger:05d}{SUFFIX}")


def parts_of(data: str, generation: Generation) -> list[str]:
    """The files of a generation's ledger."""
    folder = generation_folder(data, generation)
    return [part_path(folder, generation, number) for number in range(generation.ledger)]


def removals_path(data: str) -> str:
    """The file that names the videos that were taken out on request."""
    return filesystem.join(data, FOLDER, f"removals{SUFFIX}")


def read_removals(data: str) -> list[Entry]:
    """Read the entries of the videos that were taken out on request. Raises `LedgerError` if their file is damaged."""
    path = removals_path(data)
    return removal_entries(filesystem.read_existing(path), path)


def removal_entries(content: bytes | None, path: str) -> list[Entry]:
    """Return the entries in the content of the file of removals. Raises `LedgerError` if it is damaged."""
    return list(_whole_lines((content or b"").splitlines(keepends=True), path))


class LedgerError(UserError):
    """A file of the ledger that is written in one piece is damaged; the message names the line."""


class Ledger:
    """The ledger of a data folder, appended to by this process under `writer`, which no other one uses."""

    def __init__(self, data: str, writer: str = "main"):
        self.folder = filesystem.join(data, FOLDER)
        self._file = filesystem.join(self.folder, f"{writer}{SUFFIX}")

    def append(self, entry: Entry) -> None:
        """Record an outcome; it is on the disk when this returns."""
        filesystem.append_line(self._file, line(entry))

    def entries(self) -> dict[str, Entry]:
        """The newest entry of every item, keyed by id."""
        files = filesystem.list_files(self.folder, SUFFIX)
        return newest(entry for path in files for entry in read_lines(path))


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


def read_part(path: str) -> Iterator[Entry]:
    """Stream the entries of a file that is written in one piece, such as a part of a generation's ledger.

    Raises `LedgerError` for a line that is not an entry: a video must not be forgotten.
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
    """Entries of a ledger file's content; lines that are torn or foreign are passed over."""
    for line in data.split(b"\n"):
        try:
            values = json.loads(line)
            entry = Entry(**{name: value for name, value in values.items() if name in _NAMES})
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
        if isinstance(entry.id, str) and isinstance(entry.at, int | float):
            yield entry
