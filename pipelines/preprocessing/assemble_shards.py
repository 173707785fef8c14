"""Assemble a generation of shards from committed videos: assign by hash, pack, write and sum up.

Only tables of videos are shuffled; the worker that writes a shard reads its images and audio from the per-video store.
Shards and manifest have the same bytes for any runner, number of workers, and size and order of bundles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsSingleton, TaggedOutput

from ingest.similarity import GroupRules, group_pictures, score
from pipelines.extraction import embedders
from pipelines.preprocessing.mix_text import MixText, NoText
from pipelines.runner.beam_types import PCollection
from pipelines.runner.metering import JOB, count, timed
from shards.dataset import planning, writer
from shards.dataset.manifest import Shard
from shards.dataset.packing import Run
from shards.dataset.planning import LeftOver, Packing, ShardPlan, Target
from shards.dataset.sums import Sums
from shards.dataset.text_store import TextStore
from shards.dataset.video_store import VideoStore, VideoTable
from shards.storage.errors import UserError
from shards.storage.randomness import digest

LEFT_OVER, REMAINDER, SUMS = "left-over", "remainder", "sums"
KEPT = "kept"
"""The outcome of a group that was scored and passes all rules."""


@dataclass(frozen=True)
class Assembly:
    """The generation to create: its folder, split and number, and how segments are packed and filtered.

    `pending` are the runs of segments that earlier generations could not pack, as (video, first, stop), and `took` the
    numbers of those generations.
    """

    out: str
    split: str
    number: int
    packing: Packing
    rules: GroupRules
    pending: tuple[tuple[str, int, int], ...] = ()
    took: tuple[int, ...] = ()


class Assembled(NamedTuple):
    """The outputs of an assembly: shards, remaining runs, statistics of the shards, target, the number of text
    sequences used from each source, and the counts of each source."""

    shards: PCollection
    remainder: PCollection
    sums: PCollection
    target: PCollection
    text_used: PCollection
    text_packed: PCollection


class AssembleShards(beam.PTransform):
    """Packed tables of videos with segments -> the written shards of one generation."""

    def __init__(self, assembly: Assembly, mixture: MixText | None = None):
        super().__init__()
        self.assembly, self.mixture = assembly, mixture

    def expand(self, tables: PCollection) -> Assembled:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Write the shards; nothing is committed."""
        assembly = self.assembly
        target = (
            tables
            | "Measure each video" >> beam.Map(_measure)
            | "Compute the number of shards" >> beam.CombineGlobally(MeasureFn(assembly))
        )
        planned = (
            tables
            | "Assign videos to shards by hash" >> beam.Map(_assign, AsSingleton(target), assembly.packing.seed)
            | "Group videos by shard" >> beam.GroupByKey()
            | "Pack examples"
            >> beam.ParDo(PackShard(assembly), AsSingleton(target)).with_outputs(LEFT_OVER, main="plans")
        )
        pending = (
            tables.pipeline
            | "List pending runs of earlier generations" >> beam.Create(list(assembly.pending), reshuffle=False)
            | "Look up their tables" >> beam.ParDo(ReadPending(assembly))
        )
        rest = (
            tables.pipeline
            | "Start the last group" >> beam.Create([None], reshuffle=False)
            | "Pack the remaining runs"
            >> beam.ParDo(
                PackRest(assembly), AsIter(pending), AsIter(planned[LEFT_OVER]), AsSingleton(target)
            ).with_outputs(REMAINDER, main="plans")
        )
        spread = rest.plans | "Distribute the last shards" >> beam.Reshuffle()
        plans = (planned.plans, spread) | "All shards" >> beam.Flatten()
        mixed = plans | "Mix in text" >> (self.mixture or NoText())
        written = mixed.plans | "Write shards" >> beam.ParDo(WriteShard(assembly)).with_outputs(SUMS, main="shards")
        sums = written[SUMS] | "Sum up the shards" >> beam.CombineGlobally(SumFn())
        return Assembled(written.shards, rest[REMAINDER], sums, target, mixed.used, mixed.packed)


def _measure(table: bytes) -> tuple[int, int, int]:
    """Return the number of segments, their bytes, and a digest of their content as an integer."""
    video = VideoTable.unpack(table)
    content = digest(0, "content", video.id, *(crc for _, _, crc in video.spans))
    return len(video.spans), video.segment_bytes, int.from_bytes(content[:8], "little")


class MeasureFn(beam.CombineFn):
    """(segments, bytes, digest) of videos -> the target of their generation."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def create_accumulator(self) -> tuple[int, int, int]:
        """Return the measure of no videos."""
        return 0, 0, 0

    def add_input(self, total: tuple[int, ...], one: tuple[int, ...]) -> tuple[int, ...]:
        """Add one video."""
        return self.merge_accumulators([total, one])

    def merge_accumulators(self, totals: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        """Add totals."""
        segments, size, content = (sum(values) for values in zip(*totals, strict=True))
        return segments, size, content % (1 << 64)

    def extract_output(self, total: tuple[int, ...]) -> Target:
        """Return the number of shards, and the tag of the videos."""
        assembly, packing, (segments, size, content) = self.assembly, self.assembly.packing, total
        tag = digest(0, "tag", packing.config, packing.rules, *map(str, assembly.pending), content).hex()[:6]
        return Target(assembly.split, assembly.number, tag, planning.shard_count(size, segments, packing))


def _assign(table: bytes, target: Target, seed: int) -> tuple[int, bytes]:
    return planning.shard_of(seed, VideoTable.unpack(table).id, target.shards), table


class PackShard(beam.DoFn):
    """(index, packed tables) -> the plan of one shard; runs that fill no example are output as `LEFT_OVER`."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(self, element: tuple[int, Iterable[bytes]], target: Target) -> Iterator[ShardPlan | TaggedOutput]:
        """Plan one shard."""
        index, tables = element
        plan, left_over = planning.plan_shard(index, map(VideoTable.unpack, tables), target, self.assembly.packing)
        for run in left_over:
            yield TaggedOutput(LEFT_OVER, run)
        if plan.groups:
            yield plan


class ReadPending(beam.DoFn):
    """A pending run -> the run and the table of its video."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(self, run: tuple[str, int, int]) -> Iterator[LeftOver]:
        """Read one object of the per-video store. Raises `VideoStoreError` if it is missing."""
        yield Run(*run), VideoStore(self.assembly.out).get(run[0])


class PackRest(beam.DoFn):
    """None -> the plans of the last shards; runs that fill no example are output as `REMAINDER`."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(
        self, _: None, pending: Iterable[LeftOver], left_over: Iterable[LeftOver], target: Target
    ) -> Iterator[ShardPlan | TaggedOutput]:
        """Plan the shards of all runs that did not fit."""
        plans, remainder = planning.plan_rest(pending, left_over, target, self.assembly.packing)
        for run in remainder:
            yield TaggedOutput(REMAINDER, run)
        yield from plans


class WriteShard(beam.DoFn):
    """(ShardPlan, digest of the text) -> Shard: write the planned segments; a finished shard is reused.

    Groups whose images break a rule are left out; the sidecar names them with their scores. The shard's statistics are
    output as `SUMS`.
    """

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(self, element: tuple[ShardPlan, str]) -> Iterator[Shard | TaggedOutput]:
        """Write one shard with its index and sidecar."""
        with timed("write-shard"):
            shard, sidecar = self._finish(*element)
        count(JOB, "examples", shard.examples)
        yield TaggedOutput(SUMS, Sums.of_shard(shard.name, shard.bytes, sidecar))
        yield shard

    def _finish(self, plan: ShardPlan, texts: str) -> tuple[Shard, dict[str, Any]]:
        """Return the finished shard and its sidecar, written now unless they exist."""
        digest_of_plan = plan.digest(self.assembly.packing, texts)
        if finished := writer.finished_shard(self.assembly.out, plan.name, digest_of_plan):
            return finished
        try:
            return self._write(plan, digest_of_plan)
        except UserError:
            # Another job with the same plan may have committed this shard and then removed its videos from the store.
            if finished := writer.finished_shard(self.assembly.out, plan.name, digest_of_plan):
                return finished
            raise

    def _write(self, plan: ShardPlan, digest_of_plan: str) -> tuple[Shard, dict[str, Any]]:
        out = self.assembly.out
        store = VideoStore(out)
        scored = self._score(store, plan) if self.assembly.rules.active else []
        plan = _without(plan, {group["number"] for group in scored if group["outcome"] != KEPT})
        read = TextStore(out).read(plan.texts) if plan.texts else None
        examples = writer.examples_of(store, plan.groups, plan.tables, read)
        return writer.write_shard(out, plan.name, digest_of_plan, plan.groups, examples, plan.texts, scored)

    def _score(self, store: VideoStore, plan: ShardPlan) -> list[dict[str, Any]]:
        """Return the scores and the outcome of each sampled group."""
        rules = self.assembly.rules
        embed = embedders.load(rules.embedder)
        scored = []
        for number, group in enumerate(plan.groups):
            if embed and rules.draws(plan.name, number):
                runs = ((plan.tables[run.video_id], run.first, run.stop) for run in group)
                segments = [segment for run in runs for segment in store.read(*run)]
                scores = score(group_pictures(segments), embed)
                broken = rules.broken(scores)
                named = [[run.video_id, run.first, run.stop] for run in group]
                scored.append({"number": number, "runs": named, **scores, "outcome": broken.value if broken else KEPT})
        return scored


def _without(plan: ShardPlan, numbers: set[int]) -> ShardPlan:
    remaining = [i for i in range(len(plan.groups)) if i not in numbers]
    texts = [plan.texts[i] for i in remaining] if plan.texts else []
    return dataclasses.replace(plan, groups=[plan.groups[i] for i in remaining], texts=texts)


class SumFn(beam.CombineFn):
    """Statistics -> their sum, in bounded memory."""

    def create_accumulator(self) -> Sums:
        """Return the sum of nothing."""
        return Sums()

    def add_input(self, total: Sums, one: Sums) -> Sums:
        """Add the statistics of one shard."""
        return total.add(one)

    def merge_accumulators(self, totals: Iterable[Sums]) -> Sums:
        """Add totals."""
        merged = Sums()
        for total in totals:
            merged.add(total)
        return merged

    def extract_output(self, total: Sums) -> Sums:
        """Return the sum."""
        return total
