"""Web text for the examples: corpora are packed into sequences, and every example gets some, each source by its weight.

Every file is one piece of work, committed by itself, so that any number of workers packs the same bytes and a job that
was stopped goes on with what is missing. A source's sequences are used in order, from where the last generation ended,
and start over when they are used up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from ingest.corpus.documents import SUFFIXES
from pipelines.preprocessing.text_options import Source, TextOptions
from shards import tokenizer as vocabulary
from shards.dataset.planning import ShardPlan
from shards.dataset.text_store import SEQUENCE_LENGTH, TextStore
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.storage.randomness import generator

_COUNTED = ("characters", "documents", "sequences")


@dataclass(frozen=True)
class Piece:
    """One file to pack: its source, its number there, its path, and the digest of all that decides the result."""

    source: str
    number: int
    path: str
    digest: str


@dataclass(frozen=True)
class TextMixture:
    """The corpora of a job: their files, weights, how many sequences an example gets, and how they are packed.

    `used` says how many sequences of each source earlier generations took.
    """

    out: str
    tokenizer: str
    seed: int
    options: TextOptions
    pieces: tuple[Piece, ...]
    used: Mapping[str, int]

    @property
    def digest(self) -> str:
        """What the content of the sequences depends on."""
        return hashlib.sha256(json.dumps([piece.digest for piece in self.pieces]).encode()).hexdigest()


def list_pieces(options: TextOptions, tokenizer: str, seed: int) -> tuple[Piece, ...]:
    """The files of all corpora. Raises `UserError` for a corpus without any."""
    return tuple(piece for source in options.sources() for piece in _pieces(source, options, tokenizer, seed))


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


class Mixed(NamedTuple):
    """Plans with their texts, how many sequences of each source they take, and what each source holds."""

    plans: beam.PCollection
    taken: beam.PCollection
    packed: beam.PCollection


class MixText(beam.PTransform):
    """ShardPlan -> the plan with texts for its examples, and the digest of all text."""

    def __init__(self, mixture: TextMixture):
        super().__init__()
        self.mixture = mixture

    def expand(self, plans: beam.PCollection) -> Mixed:
        """The plans with their texts; packs the corpora first."""
        packed = (
            plans.pipeline
            | "Name the files of text" >> beam.Create(list(self.mixture.pieces), reshuffle=False)
            | "Spread the files over the workers" >> beam.Reshuffle()
            | "Clean, encode and pack" >> beam.ParDo(PackText(self.mixture))
            | "Count the sequences" >> beam.CombineGlobally(CountFn(self.mixture))
        )
        drawn = plans | "Draw a source for every sequence" >> beam.Map(_drawn, self.mixture)
        taken = (
            drawn
            | "Count what each shard takes" >> beam.Map(_taken_by)
            | "Put the shards in order" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        )
        starts = taken | "Start each shard where the one before ends" >> beam.Map(_starts, self.mixture.used)
        mixed = drawn | "Choose the sequences" >> beam.Map(
            _chosen, AsSingleton(starts), AsSingleton(packed), self.mixture.digest
        )
        return Mixed(mixed, taken | "Add up what is taken" >> beam.Map(_total), packed)


class NoText(beam.PTransform):
    """ShardPlan -> the plan as it is."""

    def expand(self, plans: beam.PCollection) -> Mixed:
        """The plans without texts."""
        nothing = plans.pipeline | "No sequences" >> beam.Create([{}], reshuffle=False)
        return Mixed(plans | "No texts" >> beam.Map(lambda plan: (plan, "")), nothing, nothing)


class PackText(beam.DoFn):
    """Piece -> (source, what was counted): its sequences are in the store."""

    def __init__(self, mixture: TextMixture):
        self.mixture = mixture

    def process(self, piece: Piece) -> Iterator[tuple[str, Counter[str]]]:
        """Pack one file, unless it was packed before."""
        store = TextStore(self.mixture.out)
        counts = store.finished(piece.source, piece.number, piece.digest)
        if counts is None:
            # What cleans text takes half a second to import, which most jobs have no use for.
            from ingest.corpus.packing import packed_file

            counts = Counter()
            name, words = f"{piece.source}/{piece.number}", vocabulary.load_tokenizer(self.mixture.tokenizer)
            subsets = self.mixture.options.text_subsets
            sequences = packed_file(piece.path, name, words, self.mixture.seed, subsets, counts)
            store.commit(piece.source, piece.number, piece.digest, sequences, counts)
        yield piece.source, counts


class CountFn(beam.CombineFn):
    """(source, counts) -> the counts of every source. Raises `UserError` for one that fills no sequence."""

    def __init__(self, mixture: TextMixture):
        self.mixture = mixture

    def create_accumulator(self) -> dict[str, Counter[str]]:
        """Nothing."""
        return {}

    def add_input(self, total: dict[str, Counter[str]], one: tuple[str, Counter[str]]) -> dict[str, Counter[str]]:
        """Add one file."""
        source, counts = one
        return total | {source: total.get(source, Counter()) + counts}

    def merge_accumulators(self, totals: Iterable[dict[str, Counter[str]]]) -> dict[str, Counter[str]]:
        """Add totals."""
        merged: dict[str, Counter[str]] = {}
        for total in totals:
            for one in total.items():
                merged = self.add_input(merged, one)
        return merged

    def extract_output(self, total: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
        """The counts of every source."""
        for source in self.mixture.options.sources():
            counts = total.get(source.name, Counter())
            if total and not counts["sequences"]:
                raise UserError(
                    f"the text {source.path!r} fills no sequence of {SEQUENCE_LENGTH} tokens: {described(counts)}"
                )
        return total


def described(counts: Counter[str]) -> str:
    """What was counted in a source, in words."""
    problems = [f"{count} {name}" for name, count in sorted(counts.items()) if name not in _COUNTED and count]
    said = f"{counts['sequences']} sequences of {counts['documents']} documents"
    return f"{said}; {', '.join(problems)}" if problems else said


def _drawn(plan: ShardPlan, mixture: TextMixture) -> tuple[ShardPlan, list[list[str]]]:
    """For every example of a shard the source of each of its sequences."""
    sources = mixture.options.sources()
    weights = [source.weight / sum(s.weight for s in sources) for source in sources]
    size = (len(plan.groups), mixture.options.text_sequences)
    drawn = generator(mixture.seed, "text", plan.name).choice(len(sources), size, p=weights)
    return plan, [[sources[i].name for i in row] for row in drawn.tolist()]


def _taken_by(drawn: tuple[ShardPlan, list[list[str]]]) -> tuple[str, Counter[str]]:
    plan, sources = drawn
    return plan.name, Counter(name for row in sources for name in row)


def _starts(taken: list[tuple[str, Counter[str]]], used: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """For every shard, in the order of their names, the number of the sequence of each source that it begins with."""
    following, starts = Counter(used), {}
    for name, counts in sorted(taken):
        starts[name] = dict(following)
        following += counts
    return starts


def _chosen(
    drawn: tuple[ShardPlan, list[list[str]]],
    starts: dict[str, dict[str, int]],
    packed: dict[str, Counter[str]],
    digest: str,
) -> tuple[ShardPlan, str]:
    plan, sources = drawn
    following = Counter(starts[plan.name])
    texts = []
    for row in sources:
        refs = []
        for name in row:
            refs.append((name, following[name] % packed[name]["sequences"]))
            following[name] += 1
        texts.append(refs)
    return dataclasses.replace(plan, texts=texts), digest


def _total(taken: list[tuple[str, Counter[str]]]) -> dict[str, int]:
    return dict(sorted(sum((counts for _, counts in taken), Counter()).items()))
