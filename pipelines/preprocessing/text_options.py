"""The options of the text that is mixed into the examples, with their checks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ingest.config import PILE_SUBSETS
from shards import command_line
from shards.storage.errors import UsageError

_WEIGHT = re.compile(r":(\d+(?:\.\d+)?)$")
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class TextOptions:
    """Web text to mix into the examples."""

    text: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[PATH[:WEIGHT] [PATH[:WEIGHT] ...]]")] = ()
    """Text corpora, PATH or PATH:WEIGHT: files or folders of .jsonl, .txt (plain, .gz or .zst) or .parquet."""
    text_sequences: int = 2
    """Text sequences per example, if there is any text."""
    text_subsets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[SUBSET [SUBSET ...]]")] = PILE_SUBSETS
    """Subsets of The Pile to use; lines without a subset are always used."""

    def check(self) -> None:
        """Raise `UsageError` for invalid values."""
        if not 1 <= self.text_sequences <= 16:
            raise UsageError(f"--text-sequences {self.text_sequences} must be from 1 to 16")
        names = [source.name for source in self.sources()]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"two of --text are named {repeated[0]!r}; rename one, sources are identified by name")

    def check_paths(self) -> None:
        """Raise `UsageError` for a corpus on this machine that does not exist."""
        for source in self.sources():
            if command_line.is_local(source.path) and not Path(source.path).exists():
                raise UsageError(f"there is no text {source.path!r}; --text needs a file or folder")

    def sources(self) -> list[Source]:
        """Return the corpora with name, path and weight. Raises `UsageError` for an empty name or a weight of zero."""
        sources = []
        for argument in self.text:
            weight = _WEIGHT.search(argument)
            path = argument[: weight.start()] if weight else argument
            name = _NAME.sub("-", path.rstrip("/").rpartition("/")[2].split(".")[0]).strip("-")
            if not name or (weight and not float(weight[1])):
                raise UsageError(f"--text {argument!r} must be PATH or PATH:WEIGHT with a positive weight")
            sources.append(Source(name, path, float(weight[1]) if weight else 1.0))
        return sources

    def resolved(self) -> dict[str, Any]:
        """Return what the config of a data folder stores of its text: names and weights, but not paths."""
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
