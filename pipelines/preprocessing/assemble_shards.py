"""From committed videos to a generation of shards: dealt by hash, packed, written, summed up, and committed last.

Only tables of videos travel through shuffles; the worker that writes a shard reads its pictures and sound from the
per-video store. Shards and manifest are the same bytes for any runner, number of workers, size and order of bundles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsSingleton

from ingest.similarity import GroupRules, group_pictures, judge
from pipelines.extraction import embedders
from pipelines.preprocessing.mix_text import MixText, NoText
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
"""The outcome of a group that was looked at and breaks no rule."""


@dataclass(frozen=True)
class Assembly:
    """The generation that is made: where, its split and number, how segments are packed, and what waits to be packed.

    `waiting` are the runs that earlier generations left over, as (video, first, stop), `took` the numbers of these.
    """

    out: str
    split: str
    number: int
    packing: Packing
    rules: GroupRules
    waiting: tuple[tuple[str, int, int], ...] = ()
    took: tuple[int, ...] = ()


class Assembled(NamedTuple):
    """What a generation is made of: its shards, the runs left over, the statistics of its shards, its target, how many
    text sequences of each source it takes, and what was counted in each source."""

    shards: beam.PCollection
    remainder: beam.PCollection
    sums: beam.PCollection
    target: beam.PCollection
    text_taken: beam.PCollection
    text_packed: beam.PCollection


class AssembleShards(beam.PTransform):
    """Packed tables of videos with segments -> the written shards of one generation."""

    def __init__(self, assembly: Assembly, mixture: MixText | None = None):
        super().__init__()
        self.assembly, self.mixture = assembly, mixture

    def expand(self, tables: beam.PCollection) -> Assembled:
        """The shards and what belongs to them; nothing is committed."""
        ours = self.assembly
        target = (
            tables
            | "Measure each video" >> beam.Map(_measure)
            | "Decide the number of shards" >> beam.CombineGlobally(MeasureFn(ours))
        )
        planned = (
            tables
            | "Deal videos to shards by hash" >> beam.Map(_dealt, AsSingleton(target), ours.packing.seed)
            | "Bring each shard's videos together" >> beam.GroupByKey()
            | "Pack examples" >> beam.ParDo(PackShard(ours), AsSingleton(target)).with_outputs(LEFT_OVER, main="plans")
        )
        waiting = (
            tables.pipeline
            | "Name what waits since earlier generations" >> beam.Create(list(ours.waiting), reshuffle=False)
            | "Look up its tables" >> beam.ParDo(ReadWaiting(ours))
        )
        rest = (
            tables.pipeline
            | "Begin the last group" >> beam.Create([None], reshuffle=False)
            | "Pack what is left over"
            >> beam.ParDo(
                PackRest(ours), AsIter(waiting), AsIter(planned[LEFT_OVER]), AsSingleton(target)
            ).with_outputs(REMAINDER, main="plans")
        )
        spread = rest.plans | "Spread the last shards over the workers" >> beam.Reshuffle()
        plans = (planned.plans, spread) | "All shards" >> beam.Flatten()
        mixed = plans | "Mix in text" >> (self.mixture or NoText())
        written = mixed.plans | "Write shards" >> beam.ParDo(WriteShard(ours)).with_outputs(SUMS, main="shards")
        sums = written[SUMS] | "Sum up the shards" >> beam.CombineGlobally(SumFn())
        return Assembled(written.shards, rest[REMAINDER], sums, target, mixed.taken, mixed.packed)


def _measure(table: bytes) -> tuple[int, int, int]:
    """Segments, bytes, and a number that stands for the content."""
    video = VideoTable.unpack(table)
    content = digest(0, "content", video.id, *(crc for _, _, crc in video.spans))
    return len(video.spans), video.segment_bytes, int.from_bytes(content[:8], "little")


class MeasureFn(beam.CombineFn):
    """Measures of videos -> the target of their generation."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def create_accumulator(self) -> tuple[int, int, int]:
        """Nothing."""
        return 0, 0, 0

    def add_input(self, total: tuple[int, ...], one: tuple[int, ...]) -> tuple[int, ...]:
        """Add one video."""
        return self.merge_accumulators([total, one])

    def merge_accumulators(self, totals: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        """Add totals."""
        segments, size, content = (sum(values) for values in zip(*totals, strict=True))
        return segments, size, content % (1 << 64)

    def extract_output(self, total: tuple[int, ...]) -> Target:
        """The number of shards, and the tag of the videos."""
        ours, (segments, size, content) = self.assembly, total
        tag = digest(0, "tag", ours.packing.config, ours.packing.rules, *map(str, ours.waiting), content).hex()[:6]
        return Target(ours.split, ours.number, tag, planning.shard_count(size, segments, ours.packing))


def _dealt(table: bytes, target: Target, seed: int) -> tuple[int, bytes]:
    return planning.shard_of(seed, VideoTable.unpack(table).id, target.shards), table


class PackShard(beam.DoFn):
    """(index, packed tables) -> the plan of one shard; what it leaves over goes to `LEFT_OVER`."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(
        self, element: tuple[int, Iterable[bytes]], target: Target
    ) -> Iterator[ShardPlan | beam.pvalue.TaggedOutput]:
        """Plan one shard."""
        index, tables = element
        plan, left = planning.plan_shard(index, map(VideoTable.unpack, tables), target, self.assembly.packing)
        for over in left:
            yield beam.pvalue.TaggedOutput(LEFT_OVER, over)
        if plan.groups:
            yield plan


class ReadWaiting(beam.DoFn):
    """A run that waits -> the run and the table of its video."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(self, run: tuple[str, int, int]) -> Iterator[LeftOver]:
        """Ask for one object. Raises `VideoStoreError` if it is gone."""
        yield Run(*run), VideoStore(self.assembly.out).get(run[0])


class PackRest(beam.DoFn):
    """Nothing -> the plans of the last shards; the runs that fill no example go to `REMAINDER`."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(
        self, _: None, waiting: Iterable[LeftOver], left: Iterable[LeftOver], target: Target
    ) -> Iterator[ShardPlan | beam.pvalue.TaggedOutput]:
        """Plan what all shards left over."""
        plans, remainder = planning.plan_rest(waiting, left, target, self.assembly.packing)
        for run in remainder:
            yield beam.pvalue.TaggedOutput(REMAINDER, run)
        yield from plans


class WriteShard(beam.DoFn):
    """(ShardPlan, digest of the text) -> Shard: read the planned segments, write the shard; a finished one is kept.

    Groups whose pictures break a rule are left out; the sidecar says which, and their scores. The shard's statistics go
    to `SUMS`.
    """

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def process(self, element: tuple[ShardPlan, str]) -> Iterator[Shard | beam.pvalue.TaggedOutput]:
        """Write one shard with its index and sidecar."""
        with timed("write-shard"):
            shard, sidecar = self._written(*element)
        count(JOB, "examples", shard.examples)
        yield beam.pvalue.TaggedOutput(SUMS, Sums.of_shard(shard.name, shard.bytes, sidecar))
        yield shard

    def _written(self, plan: ShardPlan, texts: str) -> tuple[Shard, dict[str, Any]]:
        planned = plan.digest(self.assembly.packing, texts)
        if finished := writer.finished_shard(self.assembly.out, plan.name, planned):
            return finished
        try:
            return self._write(plan, planned)
        except UserError:
            # Another job with the same plan drops the videos when it has written this shard and committed it.
            if finished := writer.finished_shard(self.assembly.out, plan.name, planned):
                return finished
            raise

    def _write(self, plan: ShardPlan, planned: str) -> tuple[Shard, dict[str, Any]]:
        out = self.assembly.out
        store = VideoStore(out)
        judged = self._judged(store, plan) if self.assembly.rules.active else []
        plan = _without(plan, {group["number"] for group in judged if group["outcome"] != KEPT})
        read = TextStore(out).read(plan.texts) if plan.texts else None
        examples = writer.examples_of(store, plan.groups, plan.tables, read)
        return writer.write_shard(out, plan.name, planned, plan.groups, examples, plan.texts, judged)

    def _judged(self, store: VideoStore, plan: ShardPlan) -> list[dict[str, Any]]:
        """The scores of the groups that are looked at, and the outcome of each."""
        rules = self.assembly.rules
        embed = embedders.load(rules.embedder)
        judged = []
        for number, group in enumerate(plan.groups):
            if embed and rules.draws(plan.name, number):
                runs = ((plan.tables[run.video_id], run.first, run.stop) for run in group)
                segments = [segment for run in runs for segment in store.read(*run)]
                scores = judge(group_pictures(segments), embed)
                broken = rules.broken(scores)
                named = [[run.video_id, run.first, run.stop] for run in group]
                judged.append({"number": number, "runs": named, **scores, "outcome": broken.value if broken else KEPT})
        return judged


def _without(plan: ShardPlan, numbers: set[int]) -> ShardPlan:
    kept = [i for i in range(len(plan.groups)) if i not in numbers]
    texts = [plan.texts[i] for i in kept] if plan.texts else []
    return dataclasses.replace(plan, groups=[plan.groups[i] for i in kept], texts=texts)


class SumFn(beam.CombineFn):
    """Statistics -> their sum, in bounded space."""

    def create_accumulator(self) -> Sums:
        """Nothing."""
        return Sums()

    def add_input(self, total: Sums, one: Sums) -> Sums:
        """Add the statistics of one shard or item."""
        return total.add(one)

    def merge_accumulators(self, totals: Iterable[Sums]) -> Sums:
        """Add totals."""
        merged = Sums()
        for total in totals:
            merged.add(total)
        return merged

    def extract_output(self, total: Sums) -> Sums:
        """The sum."""
        return total
