"""From committed segments to shards: plan a generation, give its examples their text, write it, and commit it.

Who calls this decides which videos a generation takes up: all that wait, or those of one wave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest.outcomes import Kind
from pipelines.execution import new_pipeline, run_to_end
from pipelines.folder import TOKENIZER_NAME, log_path, manifest_of, vocabulary_of
from pipelines.options import PreprocessOptions
from pipelines.transforms import WriteShard
from shards import filesystem, generations, pinned, writer
from shards.errors import UserError
from shards.generations import GenerationPlan, Packing
from shards.ledger import Ledger
from shards.manifest import Manifest, Shard
from shards.text_store import Mixed, TextStore, used, with_texts


def assemble(options: PreprocessOptions, config: str, beam_options: PipelineOptions, console: Console) -> None:
    """Pack what is committed and not yet packed into a new generation of shards, after one that was begun if any."""
    packing = packing_of(options, config)
    while plan := next_plan(options, packing):
        held = manifest_of(options.out)
        if plan.shards and (texts := prepare_texts(options, beam_options, console)):
            plan = texts.dealt(plan, texts.used(held, before=plan.number), packing)
        shards = write_shards(plan, held, options, beam_options)
        generations.commit_generation(options.out, held, plan, shards, packing, vocabulary_of(options.out))
        console.print(made(plan, shards))
    held = manifest_of(options.out)
    if held and not options.keep_segments:
        generations.drop_packed_segments(options.out, held)
        drop_texts(options)


def next_plan(options: PreprocessOptions, packing: Packing) -> GenerationPlan | None:
    """The generation that was begun, or one of all that is committed and in no other."""
    entries = Ledger(options.out).entries().values()
    committed = [e.id for e in entries if e.kind == Kind.DONE.value and e.split == options.split]
    return pinned.next_plan(options.out, manifest_of(options.out), options.split, committed, packing)


@dataclass(frozen=True)
class Texts:
    """The packed corpora of a job: how they are mixed, how many sequences an example gets, and their digest."""

    mixture: list[Mixed]
    per_example: int
    digest: str

    def used(self, held: Manifest | None, before: int) -> dict[str, int]:
        """How many sequences of each source the generations before number `before` took."""
        return {mixed.name: used(held, mixed.name, before) for mixed in self.mixture}

    def dealt(self, plan: GenerationPlan, taken: Mapping[str, int], packing: Packing, every: int = 1) -> GenerationPlan:
        """The plan with sequences on its examples; see `with_texts`."""
        config = packing.decisive + self.digest
        return with_texts(plan, self.mixture, self.per_example, taken, every, seed=packing.seed, config=config)


def prepare_texts(options: PreprocessOptions, beam_options: PipelineOptions, console: Console) -> Texts | None:
    """The corpora of the command, packed now if they are not yet; `None` if it names none."""
    if not options.text.text:
        return None
    # What cleans and encodes text takes half a second to import, which most jobs have no use for.
    from pipelines import text_corpus

    words = filesystem.join(options.out, TOKENIZER_NAME)
    seed, log = options.video.seed, log_path(options.out)
    mixture, digest = text_corpus.prepare(options.text, options.out, words, seed, beam_options, log, console)
    return Texts(mixture, options.text.text_sequences, digest)


def drop_texts(options: PreprocessOptions) -> None:
    """Remove the packed corpora, unless what is committed is kept."""
    if not options.keep_segments:
        TextStore(options.out).drop(source.name for source in options.text.sources())


def write_shards(
    plan: GenerationPlan, held: Manifest | None, options: PreprocessOptions, beam_options: PipelineOptions
) -> list[Shard]:
    """Write the planned shards. Raises `UserError` if one is missing in the end."""
    generations.discard_unfinished(options.out, held, plan)
    if plan.shards:
        pipeline = new_pipeline(beam_options, log_path(options.out), options.job(f"assemble {plan.number}"))
        _ = written(pipeline | "Plan the shards" >> beam.Create(plan.shards, reshuffle=False), options)
        run_to_end(pipeline, lambda: None)
    return finished_shards(plan, options)


def written(plans: beam.PCollection, options: PreprocessOptions) -> beam.PCollection:
    """ShardPlan -> Shard: the shards, spread over the workers."""
    return (
        plans
        | "Spread the plans over the workers" >> beam.Reshuffle()
        | "Write the shards" >> beam.ParDo(WriteShard(options.out, options.group_rules))
    )


def finished_shards(plan: GenerationPlan, options: PreprocessOptions) -> list[Shard]:
    """What was written of a plan. Raises `UserError` if a shard is missing."""
    shards = [writer.finished_shard(options.out, s.name, s.digest) for s in plan.shards]
    if missing := [s.name for s, shard in zip(plan.shards, shards, strict=True) if shard is None]:
        raise UserError(f"the shard {missing[0]!r} was not written; run the same command again")
    return shards


def packing_of(options: PreprocessOptions, config: str) -> Packing:
    """What decides how the segments of a command are packed; `config` is the digest of how they were made."""
    rules = repr(options.group_rules) if options.group_rules.active else ""
    return Packing(options.video.seed, config, options.segments_per_example, options.shard_bytes, rules)


def made(plan: GenerationPlan, shards: list[Shard]) -> str:
    """A committed generation in one sentence."""
    return (
        f"generation {plan.number}: {len(plan.videos)} videos in {len(shards)} shards,"
        f" {sum(s.examples for s in shards)} examples; {sum(map(len, plan.remainder))} segments wait for the next"
    )
