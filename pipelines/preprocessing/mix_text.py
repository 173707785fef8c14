"""Mix web text into the examples: pack corpora into sequences, and draw sequences for each example by source weight.

Every file is packed and committed independently, so that any number of workers packs the same bytes and a stopped job
resumes with the missing files. The sequences of a source are used in order, starting after the last generation's, and
are repeated when all are used.
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
from pipelines.runner.beam_types import PCollection
from shards import tokenizer as vocabulary
from shards.dataset.planning import ShardPlan
from shards.dataset.text_store import SEQUENCE_LENGTH, TextStore
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.storage.randomness import generator

_COUNTED = ("characters", "documents", "sequences")


@dataclass(frozen=True)
class Piece:
    """One file to pack: its source, its number in the source, its path, and the digest of all inputs of the result."""

    source: str
    number: int
    path: str
    digest: str


@dataclass(frozen=True)
class TextMixture:
    """The text corpora of a job: files, weights, sequences per example, and how they are packed.

    `used` are the numbers of sequences of each source that earlier generations used.
    """

    out: str
    tokenizer: str
    seed: int
    options: TextOptions
    pieces: tuple[Piece, ...]
    used: Mapping[str, int]

    @property
    def digest(self) -> str:
        """The digest of everything that the content of the sequences depends on."""
        return hashlib.sha256(json.dumps([piece.digest for piece in self.pieces]).encode()).hexdigest()


def list_pieces(options: TextOptions, tokenizer: str, seed: int) -> tuple[Piece, ...]:
    """Return the files of all corpora. Raises `UserError` for a corpus without files."""
    return tuple(piece for source in options.sources() for piece in _pieces(source, options, tokenizer, seed))


def _pieces(source: Source, options: TextOptions, tokenizer: str, seed: int) -> Iterator[Piece]:
    if not filesystem.exists(source.path):
        raise UserError(f"there is no text {source.path!r}")
    paths = [path for path in filesystem.list_files(source.path) if path.endswith(SUFFIXES)]
    if not paths and source.path.endswith(SUFFIXES):
        paths = [source.path]
    if not paths:
        raise UserError(f"{source.path!r} contains no text files ({', '.join(SUFFIXES)})")
    tokenizer_digest = vocabulary.digest(tokenizer)
    for number, path in enumerate(paths):
        name, size = path.rpartition("/")[2], filesystem.size(path)
        inputs = [source.name, name, size, tokenizer_digest, seed, sorted(options.text_subsets)]
        yield Piece(source.name, number, path, hashlib.sha256(json.dumps(inputs).encode()).hexdigest())


class Mixed(NamedTuple):
    """Plans with their texts, the number of sequences used from each source, and the counts of each source."""

    plans: PCollection
    used: PCollection
    packed: PCollection


class MixText(beam.PTransform):
    """ShardPlan -> (the plan with texts for its examples, the digest of all text)."""

    def __init__(self, mixture: TextMixture):
        super().__init__()
        self.mixture = mixture

    def expand(self, plans: PCollection) -> Mixed:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Pack the corpora and assign sequences to the plans."""
        packed = (
            plans.pipeline
            | "List text files" >> beam.Create(list(self.mixture.pieces), reshuffle=False)
            | "Distribute text files" >> beam.Reshuffle()
            | "Clean, encode and pack" >> beam.ParDo(PackText(self.mixture))
            | "Count the sequences" >> beam.CombineGlobally(CountFn(self.mixture))
        )
        drawn = plans | "Draw a source for every sequence" >> beam.Map(_draw, self.mixture)
        used = (
            drawn
            | "Count the sequences of each shard" >> beam.Map(_count_by_source)
            | "Collect the shards" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        )
        starts = used | "Start each shard where the previous one ends" >> beam.Map(_starts, self.mixture.used)
        mixed = drawn | "Choose the sequences" >> beam.Map(
            _choose, AsSingleton(starts), AsSingleton(packed), self.mixture.digest
        )
        return Mixed(mixed, used | "Sum up the used sequences" >> beam.Map(_total), packed)


class NoText(beam.PTransform):
    """ShardPlan -> (the unchanged plan, an empty digest)."""

    def expand(self, plans: PCollection) -> Mixed:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Return the plans without texts."""
        empty = plans.pipeline | "No sequences" >> beam.Create([{}], reshuffle=False)
        return Mixed(plans | "No texts" >> beam.Map(lambda plan: (plan, "")), empty, empty)


class PackText(beam.DoFn):
    """Piece -> (source, counts): pack a file and commit its sequences to the text store."""

    def __init__(self, mixture: TextMixture):
        self.mixture = mixture

    def process(self, piece: Piece) -> Iterator[tuple[str, Counter[str]]]:
        """Pack one file, unless it is packed already."""
        store = TextStore(self.mixture.out)
        counts = store.finished(piece.source, piece.number, piece.digest)
        if counts is None:
            # The cleaning code takes half a second to import, and most jobs do not need it.
            from ingest.corpus.packing import packed_file

            counts = Counter()
            name, tokenizer = f"{piece.source}/{piece.number}", vocabulary.load_tokenizer(self.mixture.tokenizer)
            subsets = self.mixture.options.text_subsets
            sequences = packed_file(piece.path, name, tokenizer, self.mixture.seed, subsets, counts)
            store.commit(piece.source, piece.number, piece.digest, sequences, counts)
        yield piece.source, counts


class CountFn(beam.CombineFn):
    """(source, counts) -> the counts of every source. Raises `UserError` for a source that fills no sequence."""

    def __init__(self, mixture: TextMixture):
        self.mixture = mixture

    def create_accumulator(self) -> dict[str, Counter[str]]:
        """Return the counts of no files."""
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
        """Return the counts of every source."""
        for source in self.mixture.options.sources():
            counts = total.get(source.name, Counter())
            if total and not counts["sequences"]:
                raise UserError(
                    f"the text {source.path!r} fills no sequence of {SEQUENCE_LENGTH} tokens: {described(counts)}"
                )
        return total


def described(counts: Counter[str]) -> str:
    """Return a description of the counts of a source."""
    problems = [f"{count} {name}" for name, count in sorted(counts.items()) if name not in _COUNTED and count]
    packed = f"{counts['sequences']} sequences of {counts['documents']} documents"
    return f"{packed}; {', '.join(problems)}" if problems else packed


def _draw(plan: ShardPlan, mixture: TextMixture) -> tuple[ShardPlan, list[list[str]]]:
    """Return a plan with the source of each sequence of each example."""
    sources = mixture.options.sources()
    weights = [source.weight / sum(s.weight for s in sources) for source in sources]
    size = (len(plan.groups), mixture.options.text_sequences)
    drawn = generator(mixture.seed, "text", plan.name).choice(len(sources), size, p=weights)
    return plan, [[sources[i].name for i in row] for row in drawn.tolist()]


def _count_by_source(drawn: tuple[ShardPlan, list[list[str]]]) -> tuple[str, Counter[str]]:
    plan, sources = drawn
    return plan.name, Counter(name for row in sources for name in row)


def _starts(counts_of_shards: list[tuple[str, Counter[str]]], used: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the number of the first sequence of each source for every shard, assigned in the order of shard names."""
    following, starts = Counter(used), {}
    for name, counts in sorted(counts_of_shards):
        starts[name] = dict(following)
        following += counts
    return starts


def _choose(
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


def _total(counts_of_shards: list[tuple[str, Counter[str]]]) -> dict[str, int]:
    return dict(sorted(sum((counts for _, counts in counts_of_shards), Counter()).items()))
