"""Which text is mixed into the examples, as typed values with their checks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.config import PILE_SUBSETS
from shards import command_line
from shards.storage.errors import UsageError

_WEIGHT = re.compile(r":(\d+(?:\.\d+)?)$")
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class TextOptions:
    """Web text to mix into the examples."""

    text: tuple[str, ...] = ()
    """Corpora of text, PATH or PATH:WEIGHT: files or folders of .jsonl, .txt (plain, .gz or .zst) or .parquet."""
    text_sequences: int = 2
    """Text sequences in one example, where there is any text."""
    text_subsets: tuple[str, ...] = PILE_SUBSETS
    """Subsets of The Pile that are taken; lines that name no subset always are."""

    def check(self) -> None:
        """Raises `UsageError` for values that make no sense."""
        if not 1 <= self.text_sequences <= 16:
            raise UsageError(f"--text-sequences {self.text_sequences} must be from 1 to 16")
        names = [source.name for source in self.sources()]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"two of --text are called {twice[0]!r}; rename one, sources are known by name")

    def check_paths(self) -> None:
        """Raises `UsageError` for a corpus on this machine that is not there."""
        for source in self.sources():
            if command_line.is_local(source.path) and not Path(source.path).exists():
                raise UsageError(f"there is no text {source.path!r}; --text needs a file or folder")

    def sources(self) -> list[Source]:
        """The corpora by name, path and weight. Raises `UsageError` for one without weight or name."""
        found = []
        for given in self.text:
            weight = _WEIGHT.search(given)
            path = given[: weight.start()] if weight else given
            name = _NAME.sub("-", path.rstrip("/").rpartition("/")[2].split(".")[0]).strip("-")
            if not name or (weight and not float(weight[1])):
                raise UsageError(f"--text {given!r} must be PATH or PATH:WEIGHT with a positive weight")
            found.append(Source(name, path, float(weight[1]) if weight else 1.0))
        return found

    def resolved(self) -> dict[str, Any]:
        """What a data folder records of its text; another place of the same files is no other text."""
        sources = [f"{source.name}:{source.weight:g}" for source in self.sources()]
        return {
            "sequences": self.text_sequences if sources else 0,
            "sources": sources,
            "subsets": list(self.text_subsets) if sources else [],
        }


@dataclass(frozen=True)
class Source:
    """One corpus of text."""

    name: str
    path: str
    weight: float
