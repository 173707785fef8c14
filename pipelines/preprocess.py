"""Videos become verified shards: the main job.

Two steps, each committed: extraction turns every video into segments in the store of the data folder; assembly packs
references to them and writes shards, and last the manifest. Whatever stops the job, the same command continues it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections import Counter
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest import raw as raw_videos
from ingest.ids import read_ids
from ingest.outcomes import Kind, Outcome
from ingest.video import Result, VideoConfig, check_config
from pipelines import dry_run, embedders, text_corpus
from pipelines.breaker import Breaker
from pipelines.execution import new_pipeline, run_and_leave, run_to_end
from pipelines.extraction import Extracted
from pipelines.options import PreprocessOptions, parse
from pipelines.progress import ExtractionProgress
from pipelines.status import note_start
from pipelines.transforms import Commit, Extract, Fetch, Item, Source, WriteShard, entry_of, is_here
from shards import filesystem, generations, manifest, stats, writer
from shards import tokenizer as vocabulary
from shards.errors import UsageError, UserError
from shards.generations import GenerationPlan
from shards.ledger import Entry, Ledger
from shards.manifest import Manifest
from shards.segments import SegmentStore, VideoText, segments_folder
from shards.text_store import TextStore, with_texts

TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = "config.json"
LOG_NAME = "job.log"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, beam_options = parse(argv)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    items = []
    if options.stage != "assemble":
        items = list_items(options)
        check_config(options.video)
        embedders.load(options.video.embedder)
    if options.dry_run:
        return dry_run.report(items, options, console)
    filesystem.make_folder(options.out)
    with filesystem.exclusive(filesystem.join(options.out, ".lock")):
        keep_log(log_path(options.out))
        filesystem.remove_temporary_files(options.out)
        config = settle_config(options)
        if options.stage == "download":
            return download(items, options, config, beam_options, console)
        if options.stage in ("extract", "all"):
            extract(items, options, config, beam_options, console)
        if options.stage in ("assemble", "all"):
            assemble(options, config, beam_options, console)
        return summarize(items, options, console)


def keep_log(path: str) -> None:
    """Send what Beam logs to a file in the data folder; the terminal shows progress and one sentence for an error."""
    logging.basicConfig(filename=path, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", force=True)


def log_path(out: str) -> str:
    """Where the job's log is: in the data folder, or in the temporary folder if the data are in a bucket."""
    if filesystem.is_remote(out):
        return str(Path(tempfile.gettempdir()) / f"reservoir-{hashlib.sha256(out.encode()).hexdigest()[:12]}.log")
    return filesystem.join(out, LOG_NAME)


def list_items(options: PreprocessOptions) -> list[Item]:
    """The videos the command names. Raises `RawError` if there is nothing to read."""
    if options.videos:
        items = [Item(Path(path).stem, Source.FOLDER, path) for path in raw_videos.list_folder(options.videos)]
    elif options.ids:
        listed = read_ids(options.ids)
        items = [Item(entry, Source.YOUTUBE, options.raw or "") for entry in [*listed.ids, *listed.bad]]
    else:
        items = [Item(name, Source.LAYOUT, options.raw) for name in raw_videos.list_layout(options.raw)]
    return items[: options.limit]


def settle_config(options: PreprocessOptions) -> str:
    """Store the config of a new data folder, or check that it is the same. Returns its digest."""
    resolved = {
        "video": options.video.resolved(),
        "segments_per_example": options.segments_per_example,
        **_of_assembly(options),
    }
    path = filesystem.join(options.out, CONFIG_NAME)
    if filesystem.exists(path):
        try:
            held = json.loads(filesystem.read_bytes(path))
        except ValueError:
            raise UserError(f"{path!r} is damaged; restore it, or choose another --out") from None
        # Folders of earlier versions were made without what they do not mention.
        for name, ours, theirs in _differences(resolved, _of_assembly(PreprocessOptions(options.out)) | held):
            raise UsageError(
                f"{options.out!r} was made with {name} {theirs!r}, not {ours!r}; use the same or another --out"
            )
    else:
        filesystem.write_bytes(
            filesystem.join(options.out, TOKENIZER_NAME), vocabulary.content(options.video.tokenizer)
        )
        filesystem.write_bytes(path, (json.dumps(resolved, indent=1) + "\n").encode())
    return options.video.digest()


def _of_assembly(options: PreprocessOptions) -> dict[str, dict]:
    """What decides about the examples beside the videos."""
    rules = options.group_rules
    groups = {"max_similarity": rules.max_similarity, "min_objects": rules.min_objects}
    return {"text": options.text.resolved(), "groups": groups | {"probability": rules.probability}}


def _differences(ours: dict, theirs: dict, prefix: str = ""):
    for name in ours:
        a, b = ours[name], theirs.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif json.loads(json.dumps(a)) != b:
            yield f"{prefix}{name}", a, b


def extract(
    items: list[Item], options: PreprocessOptions, config: str, beam_options: PipelineOptions, console: Console
) -> None:
    """Commit the segments, or the reason, of every item that has none yet."""
    note_start(options.out, len(items))
    pending, breaker = _allowed(_pending(items, options, config), options), Breaker(options.out)
    console.print(f"{len(items)} videos, {len(items) - len(pending)} finished before, {len(pending)} to do")
    if not pending:
        return
    with ExtractionProgress(options.out, len(pending), console) as progress:
        pipeline = new_pipeline(beam_options, log_path(options.out))
        _ = (
            pipeline
            | "Name the videos" >> beam.Create(pending, reshuffle=False)
            | "Spread them over the workers" >> beam.Reshuffle()
            | "Fetch" >> beam.ParDo(Fetch(_for_workers(options), options.download, options.out))
            | "Filter, align, segment and extract"
            >> beam.ParDo(Extract(_for_workers(options), options.limits, _scratch(options.out), options.keep_media))
            | "Commit the segments" >> beam.ParDo(Commit(options.out, options.split, config))
        )
        breaker.close()
        run_to_end(pipeline, progress.tick)
        progress.look()
        console.print(progress.sentence().rsplit(",", 1)[0])


def download(
    items: list[Item], options: PreprocessOptions, config: str, beam_options: PipelineOptions, console: Console
) -> int:
    """Bring the raw videos into the folder --raw; failures go to the ledger, what is there waits for extraction."""
    pending = [item for item in _allowed(_pending(items, options, config), options) if not is_here(item, options.out)]
    breaker = Breaker(options.out)
    breaker.close()
    pipeline = new_pipeline(beam_options, log_path(options.out))
    _ = (
        pipeline
        | "Name the videos" >> beam.Create(pending, reshuffle=False)
        | "Spread them over the workers" >> beam.Reshuffle()
        | "Fetch" >> beam.ParDo(Fetch(_for_workers(options), options.download, options.out))
        | "Leave what arrived" >> beam.Filter(lambda fetched: isinstance(fetched, Extracted))
        | "Record what did not" >> beam.ParDo(Commit(options.out, options.split, config))
    )
    if pending:
        run_to_end(pipeline, lambda: None)
    here = sum(is_here(item, options.out) for item in items)
    console.print(f"{here} of {len(items)} videos are in {options.raw}")
    if breaker.is_open():
        raise UserError(f"downloading stopped: {breaker.reason().sentence} Run the same command again some hours later")
    return 0


def _for_workers(options: PreprocessOptions) -> VideoConfig:
    """The config with the vocabulary where every worker finds it: workers elsewhere have no local files."""
    if not filesystem.is_remote(options.out):
        return options.video
    return dataclasses.replace(options.video, tokenizer=filesystem.join(options.out, TOKENIZER_NAME))


def _scratch(out: str) -> str | None:
    """Where workers put temporary files: beside the data if these are on a disk."""
    return None if filesystem.is_remote(out) else out


def _pending(items: list[Item], options: PreprocessOptions, config: str) -> list[Item]:
    """The items without an outcome; one whose segments are committed but not in the ledger gets its line now."""
    held = manifest.load(options.out) if _has_manifest(options.out) else None
    packed = generations.packed_videos(options.out, held)
    store, ledger = SegmentStore(segments_folder(options.out)), Ledger(options.out)
    entries = ledger.entries()
    pending = []
    for item in items:
        entry = entries.get(item.id)
        if item.id in packed or (entry and not _again(entry, options)):
            if item.id in packed or entry.kind != Kind.DONE.value or filesystem.exists(store.path(item.id)):
                continue
        elif (committed := store.find(item.id)) and committed.config_digest == config:
            result = Result(Outcome.EXTRACTED, "", committed.scores, committed.text, [])
            line = entry_of(Extracted(result, 0.0), options.split)
            ledger.append(dataclasses.replace(line, segments=len(committed.spans)))
            continue
        pending.append(item)
    return pending


def _allowed(items: list[Item], options: PreprocessOptions) -> list[Item]:
    """The items that are not on the block list; the others get their outcome."""
    if options.blocklist is None:
        return items
    listed = read_ids(options.blocklist)
    blocked, ledger = {*listed.ids, *listed.bad}, Ledger(options.out, "blocklist")
    for item in items:
        if item.id in blocked:
            result = Result(Outcome.BLOCKED, Outcome.BLOCKED.sentence, {}, VideoText(item.id))
            ledger.append(entry_of(Extracted(result, 0.0), options.split))
    return [item for item in items if item.id not in blocked]


def _again(entry: Entry, options: PreprocessOptions) -> bool:
    return options.retry_failed and entry.kind == Kind.FAILED_RETRYABLE.value


def assemble(options: PreprocessOptions, config: str, beam_options: PipelineOptions, console: Console) -> None:
    """Pack what is committed and not yet packed into a new generation of shards."""
    held = manifest.load(options.out) if _has_manifest(options.out) else None
    entries = Ledger(options.out).entries().values()
    committed = [e.id for e in entries if e.kind == Kind.DONE.value and e.split == options.split]
    made_with = config + (repr(options.group_rules) if options.group_rules.active else "")
    plan = generations.plan_generation(
        options.out,
        held,
        options.split,
        committed,
        seed=options.video.seed,
        config=made_with,
        segments_per_example=options.segments_per_example,
        shard_bytes=options.shard_bytes,
    )
    if plan:
        if plan.shards and options.text.text:
            plan = _with_texts(plan, held, options, made_with, beam_options, console)
        generations.discard_unfinished(options.out, held, plan)
        if plan.shards:
            pipeline = new_pipeline(beam_options, log_path(options.out))
            _ = (
                pipeline
                | "Plan the shards" >> beam.Create(plan.shards, reshuffle=False)
                | "Spread the plans over the workers" >> beam.Reshuffle()
                | "Write the shards" >> beam.ParDo(WriteShard(options.out, options.group_rules))
            )
            run_to_end(pipeline, lambda: None)
        shards = [writer.finished_shard(options.out, s.name, s.digest) for s in plan.shards]
        if missing := [s.name for s, shard in zip(plan.shards, shards, strict=True) if shard is None]:
            raise UserError(f"the shard {missing[0]!r} was not written; run the same command again")
        tokenizer = vocabulary.digest(filesystem.join(options.out, TOKENIZER_NAME))
        held = generations.commit_generation(
            options.out, held, plan, shards, config, tokenizer, options.segments_per_example
        )
        waiting = sum(map(len, plan.remainder))
        console.print(
            f"generation {plan.number}: {len(plan.videos)} videos in {len(shards)} shards,"
            f" {sum(s.examples for s in shards)} examples; {waiting} segments wait for the next"
        )
    if held and not options.keep_segments:
        generations.drop_packed_segments(options.out, held)
        TextStore(options.out).drop(source.name for source in options.text.sources())


def _with_texts(
    plan: GenerationPlan,
    held: Manifest | None,
    options: PreprocessOptions,
    config: str,
    beam_options: PipelineOptions,
    console: Console,
) -> GenerationPlan:
    """The plan with web text on its examples; corpora that are not packed yet are packed now."""
    words = filesystem.join(options.out, TOKENIZER_NAME)
    seed, log = options.video.seed, log_path(options.out)
    mixture, content = text_corpus.prepare(options.text, options.out, words, seed, beam_options, log, console)
    return with_texts(plan, held, mixture, options.text.text_sequences, seed=seed, config=config + content)


def summarize(items: list[Item], options: PreprocessOptions, console: Console) -> int:
    """Say what became of the items and what the folder holds; 1 if no video ever became segments."""
    entries = Ledger(options.out).entries()
    named = [entries[item.id] for item in items if item.id in entries] if items else list(entries.values())
    reasons = Counter((e.kind, e.outcome) for e in named if e.kind != Kind.DONE.value)
    for (kind, outcome), count in sorted(reasons.items()):
        example = next(e for e in named if e.outcome == outcome)
        sentence = Outcome(outcome).sentence
        more = "" if example.detail == sentence else f" {example.detail}"
        console.print(f"{count} {kind}: {outcome}. {sentence} For example {example.id!r}.{more}")
    if Breaker(options.out).is_open():
        left = len(items) - len(named)
        raise UserError(
            f"downloading stopped ({Breaker(options.out).reason().sentence}); {left} videos were not tried, what was"
            " finished is kept, run the same command again some hours later"
        )
    if not any(e.kind == Kind.DONE.value for e in entries.values()):
        raise UserError("no video became segments; the reasons are above and in the ledger")
    if _has_manifest(options.out):
        held = manifest.load(options.out)
        console.print(f"{options.out}: {_totals(held, options.out)}")
    return 0


def _totals(held: Manifest, data: str) -> str:
    summary = stats.summarize(data, held)
    return (
        f"{summary.shards} shards, {summary.counts['examples']} examples, {summary.counts['segments']} segments of"
        f" {summary.videos} videos, {summary.seconds / 3600:.2f} hours, {summary.bytes / 1e6:.1f} MB"
    )


def _has_manifest(data: str) -> bool:
    return filesystem.exists(filesystem.join(data, manifest.NAME))


if __name__ == "__main__":
    run_and_leave(main)
