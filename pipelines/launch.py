"""The whole job as one graph that is handed over and that nobody waits for, as the launcher of a Flex Template does it.

Workers commit segments as in every job. When the last video has ended, one of them plans the generation and pins the
plan, and when the last shard is written, one commits it. Each holds the data folder for moments, by a lease that ends
with it, so that nothing depends on who launched the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from rich.console import Console

from pipelines.assembly import finished_shards, next_plan, packing_of, written
from pipelines.execution import new_pipeline
from pipelines.folder import LOCK_PATIENCE, lock_path, log_path, manifest_of, settle_config, vocabulary_of
from pipelines.intake import committed, pending_items
from pipelines.metering import JOB, count, timed
from pipelines.options import PreprocessOptions
from pipelines.status import note_start
from pipelines.transforms import Item
from shards import dataset, filesystem, generations, pinned, waves
from shards.errors import UserError
from shards.generations import GenerationPlan
from shards.inspection import card
from shards.manifest import Shard


def launch(items: list[Item], options: PreprocessOptions, beam_options: PipelineOptions, console: Console) -> int:
    """Write the graph of the stages where `beam_options` say, for the launcher to start; returns the exit status."""
    out = options.out
    with filesystem.exclusive(lock_path(out), patience=LOCK_PATIENCE):
        waves.require_finished(out)
        config = settle_config(options)
        if options.stage != "assemble":
            note_start(out, len(items))
        pending = pending_items(items, options, config)
    pipeline = new_pipeline(beam_options, log_path(out))
    ended = committed(pipeline, pending, options, config)
    if options.stage != "extract":
        assembled(pipeline, ended, options, config)
    pipeline.run()
    place = beam_options.view_as(GoogleCloudOptions).template_location
    console.print(f"{len(pending)} of {len(items)} videos to do; the job's graph is {place}")
    return 0


def assembled(
    pipeline: beam.Pipeline, ended: beam.PCollection, options: PreprocessOptions, config: str
) -> beam.PCollection:
    """The committed shards of the generation that is planned when all of `ended` is there."""
    number = beam.pvalue.AsSingleton(ended | "Count the videos" >> beam.combiners.Count.Globally())
    plan = (
        pipeline
        | "Begin the generation" >> beam.Create([None], reshuffle=False)
        | "Plan and pin it" >> beam.ParDo(PlanGeneration(options, config), number)
    )
    shards = written(plan | "Its shards" >> beam.FlatMap(lambda planned: planned.shards), options)
    return plan | "Commit it" >> beam.ParDo(CommitGeneration(options, config), beam.pvalue.AsIter(shards))


class PlanGeneration(beam.DoFn):
    """Nothing -> GenerationPlan, pinned; nothing if no video waits. The side input is waited for and not used."""

    def __init__(self, options: PreprocessOptions, config: str):
        self.options, self.packing = options, packing_of(options, config)

    def process(self, _: None, ended: int) -> Iterator[GenerationPlan]:
        """Plan what a repeated call plans again."""
        out = self.options.out
        with timed("plan"), filesystem.exclusive(lock_path(out), patience=LOCK_PATIENCE):
            plan = next_plan(self.options, self.packing)
            if plan is None:
                return
            pinned.pin(out, plan, self.packing)
            generations.discard_unfinished(out, manifest_of(out), plan)
        yield plan


class CommitGeneration(beam.DoFn):
    """GenerationPlan -> Shard, each when the manifest names it. The side input is waited for: all that was written."""

    def __init__(self, options: PreprocessOptions, config: str):
        self.options, self.packing = options, packing_of(options, config)

    def process(self, plan: GenerationPlan, shards: Iterable[Shard]) -> Iterator[Shard]:
        """Commit what is not yet. Raises `UserError` if a shard is missing or one of the videos was taken out."""
        options = self.options
        with timed("commit-generation"), filesystem.exclusive(lock_path(options.out), patience=LOCK_PATIENCE):
            held = manifest_of(options.out)
            if held is None or plan.number not in {g.number for g in held.generations}:
                begun = pinned.begun(options.out, held)
                if begun is None or begun.number != plan.number:
                    raise UserError(
                        f"videos were taken out while generation {plan.number} was written; launch the job again"
                    )
                finished = finished_shards(plan, options)
                words = vocabulary_of(options.out)
                held = generations.commit_generation(options.out, held, plan, finished, self.packing, words)
                count(JOB, "generations")
            if not options.keep_segments:
                generations.drop_packed_segments(options.out, held)
            card.write(dataset.open_data(options.out))
        yield from shards
