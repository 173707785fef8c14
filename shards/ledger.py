"""What became of every item: one line per outcome, appended and never changed.

Each process appends to a file of its own, so that lines never mix; of several lines for one item the newest counts. A
line torn by a killed process is skipped, and its item simply runs again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shards import filesystem

FOLDER = "ledger"


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


class Ledger:
    """The ledger of a data folder, written by this process under `writer`, a name no other process uses."""

    def __init__(self, data: str, writer: str = "main"):
        self.folder = filesystem.join(data, FOLDER)
        self._file = filesystem.join(self.folder, f"{writer}.jsonl")

    def append(self, entry: Entry) -> None:
        """Record an outcome; it is on the disk when this returns."""
        line = json.dumps(dataclasses.asdict(entry), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        filesystem.append_line(self._file, line.encode())

    def entries(self) -> dict[str, Entry]:
        """The newest entry of every item, keyed by id."""
        newest: dict[str, Entry] = {}
        for path in filesystem.list_files(self.folder, ".jsonl"):
            for entry in parse_lines(filesystem.read_bytes(path)):
                held = newest.get(entry.id)
                if held is None or entry.at >= held.at:
                    newest[entry.id] = entry
        return newest


def parse_lines(data: bytes) -> Iterator[Entry]:
    """Entries of a ledger file; lines that are torn or foreign are passed over."""
    names = {f.name for f in dataclasses.fields(Entry)}
    for line in data.split(b"\n"):
        try:
            values = json.loads(line)
            entry = Entry(**{name: value for name, value in values.items() if name in names})
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
        if isinstance(entry.id, str) and isinstance(entry.at, int | float):
            yield entry
