"""Text corpora become packed sequences that examples carry beside their videos (spec ingest.md 18).

Every file is one piece of work, committed by itself, so any number of workers packs the same bytes and a job that was
stopped goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest.documents import PILE_SUBSETS, SUFFIXES
from ingest.text_packing import packed_file
from pipelines.execution import new_pipeline, run_to_end
from shards import filesystem
from shards import tokenizer as vocabulary
from shards.errors import UsageError, UserError
from shards.text_store import Mixed, TextStore

_WEIGHT = re.compile(r":(\d+(?:\.\d+)?)$")
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_COUNTED = ("characters", "documents", "sequences")


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


@dataclass(frozen=True)
class Piece:
    """One file to pack: its source, its number there, its path, and the digest of all that decides the result."""

    source: str
    number: int
    path: str
    digest: str


class PackText(beam.DoFn):
    """Piece -> source: its sequences into the store."""

    def __init__(self, out: str, tokenizer: str, seed: int, subsets: tuple[str, ...]):
        self.out, self.tokenizer, self.seed, self.subsets = out, tokenizer, seed, subsets

    def setup(self) -> None:
        """Load the vocabulary."""
        self.loaded = vocabulary.load_tokenizer(self.tokenizer)

    def process(self, piece: Piece) -> Iterator[str]:
        """Pack one file."""
        counts: Counter[str] = Counter()
        name = f"{piece.source}/{piece.number}"
        sequences = packed_file(piece.path, name, self.loaded, self.seed, self.subsets, counts)
        TextStore(self.out).commit(piece.source, piece.number, piece.digest, sequences, counts)
        yield piece.source


def prepare(
    options: TextOptions, out: str, tokenizer: str, seed: int, beam_options: PipelineOptions, log: str, console: Console
) -> tuple[list[Mixed], str]:
    """Pack every corpus that is not packed yet: the mixture, and the digest of its content.

    Raises `UserError` for a corpus that cannot be read or fills no sequence.
    """
    pieces = [piece for source in options.sources() for piece in _pieces(source, options, tokenizer, seed)]
    store = TextStore(out)
    pending = [p for p in pieces if store.finished(p.source, p.number, p.digest) is None]
    if pending:
        console.print(f"{len(pieces)} files of text, {len(pieces) - len(pending)} packed before")
        pipeline = new_pipeline(beam_options, log)
        _ = (
            pipeline
            | "Name the files" >> beam.Create(pending, reshuffle=False)
            | "Spread the files over the workers" >> beam.Reshuffle()
            | "Clean, encode and pack" >> beam.ParDo(PackText(out, tokenizer, seed, options.text_subsets))
        )
        run_to_end(pipeline, lambda: None)
    mixture = []
    for source in options.sources():
        counts = _counts(store, [p for p in pieces if p.source == source.name])
        console.print(f"text {source.name!r}: {_described(counts)}")
        if not counts["sequences"]:
            raise UserError(f"the text {source.path!r} fills no sequence of 1536 tokens: {_described(counts)}")
        mixture.append(Mixed(source.name, source.weight, counts["sequences"]))
    return mixture, hashlib.sha256(json.dumps([p.digest for p in pieces]).encode()).hexdigest()


def _pieces(source: Source, options: TextOptions, tokenizer: str, seed: int) -> Iterator[Piece]:
    if not filesystem.exists(source.path):
        raise UserError(f"there is no text {source.path!r}")
    paths = [path for path in filesystem.list_files(source.path) if path.endswith(SUFFIXES)]
    if not paths and source.path.endswith(SUFFIXES):
        paths = [source.path]
    if not paths:
        raise UserError(f"{source.path!r} holds no text (looked for {', '.join(SUFFIXES)})")
    words = vocabulary.digest(tokenizer)
    for number, path in enumerate(paths):
        name, size = path.rpartition("/")[2], filesystem.size(path)
        decisive = [source.name, name, size, words, seed, sorted(options.text_subsets)]
        yield Piece(source.name, number, path, hashlib.sha256(json.dumps(decisive).encode()).hexdigest())


def _counts(store: TextStore, pieces: list[Piece]) -> Counter[str]:
    total: Counter[str] = Counter()
    for piece in pieces:
        counts = store.finished(piece.source, piece.number, piece.digest)
        if counts is None:
            raise UserError(f"the text {piece.path!r} was not packed; run the same command again")
        total += counts
    return total


def _described(counts: Counter[str]) -> str:
    problems = [f"{count} {name}" for name, count in sorted(counts.items()) if name not in _COUNTED and count]
    said = f"{counts['sequences']} sequences of {counts['documents']} documents"
    return f"{said}; {', '.join(problems)}" if problems else said
