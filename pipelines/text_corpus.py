"""Text corpora become packed sequences that examples carry beside their videos (spec ingest.md 18).

Every file is one piece of work, committed by itself, so any number of workers packs the same bytes and a job that was
stopped goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest.documents import SUFFIXES
from ingest.text_packing import packed_file
from pipelines.execution import new_pipeline, run_to_end
from pipelines.text_options import Source, TextOptions
from shards import filesystem
from shards import tokenizer as vocabulary
from shards.errors import UserError
from shards.text_store import Mixed, TextStore

_COUNTED = ("characters", "documents", "sequences")


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
