"""Videos become verified shards: the main job.

Two steps, each committed: extraction turns every video into segments in the store of the data folder; assembly packs
references to them and writes shards, and last the manifest. A long list may be worked on in waves, each of which goes
through both steps by itself. Whatever stops the job, the same command continues it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest import raw as raw_videos
from ingest.ids import read_ids
from ingest.outcomes import Kind, Outcome
from ingest.video import Result, VideoConfig, check_config
from pipelines import dry_run
from pipelines.breaker import Breaker
from pipelines.budget import Budget
from pipelines.execution import new_pipeline, run_and_leave, run_to_end
from pipelines.extraction import Extracted
from pipelines.options import PreprocessOptions, parse
from pipelines.progress import ExtractionProgress
from pipelines.status import note_start
from pipelines.transforms import Commit, Extract, Fetch, Item, Source, WriteShard, entry_of, is_here
from shards import filesystem, generations, manifest, removal, stats, tally, waves, writer
from shards import tokenizer as vocabulary
from shards.errors import UsageError, UserError
from shards.generations import GenerationPlan, Packing
from shards.ledger import Entry, Ledger
from shards.manifest import Manifest, Shard
from shards.segments import SegmentStore, VideoText, segments_folder
from shards.waves import WavePlan

TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = "config.json"
LOG_NAME = "job.log"

_LOCK_PATIENCE = 600.0
"""Seconds that a job waits for others that share the folder; each holds the lock for moments."""

_LOOK_SECONDS = 2.0


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options, beam_options = parse(argv)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if options.wave and not options.dry_run:
        check_config(options.video)
        return run_waves(options, beam_options, console)
    items = []
    if options.stage != "assemble":
        items = list_items(options)
        check_config(options.video)
    if options.dry_run:
        return dry_run.report(items, options, console)
    filesystem.make_folder(options.out)
    with filesystem.exclusive(_lock_path(options.out)):
        waves.require_finished(options.out)
        keep_log(log_path(options.out))
        filesystem.remove_temporary_files(options.out)
        config = settle_config(options)
        Breaker(options.out).close()
        if options.stage == "download":
            return download(items, options, config, beam_options, console)
        if options.stage in ("extract", "all"):
            note_start(options.out, len(items))
            extract(items, options, config, beam_options, console)
        if options.stage in ("assemble", "all"):
            assemble(options, config, beam_options, console)
        return summarize(items, options, console)


def run_waves(options: PreprocessOptions, beam_options: PipelineOptions, console: Console) -> int:
    """Work on the waves of the list that nobody else works on, until all are finished; returns the exit status."""
    out = options.out
    filesystem.make_folder(out)
    with filesystem.exclusive(_lock_path(out), patience=_LOCK_PATIENCE):
        keep_log(log_path(out))
        config = settle_config(options)
        Breaker(out).close()
        number = generations.next_number(_manifest(out))
        wanted = WavePlan(options.split, _list_digest(options), options.wave, videos=0, first=number, waves=0)
        plan = waves.settle(out, wanted, lambda: _names_to_do(options))
        note_start(out, plan.videos)
    waiting = False
    while left := waves.unfinished(out):
        with waves.take(out, plan) as number:
            if number is not None:
                waiting = False
                finish_wave(number, plan, options, config, beam_options, console)
                continue
        if not waiting:
            waiting = True
            console.print(f"other jobs work on the last {len(left)} waves; this one waits in case one of them stops")
        time.sleep(_LOOK_SECONDS)
    return summarize_waves(plan, options, console)


def finish_wave(
    number: int,
    plan: WavePlan,
    options: PreprocessOptions,
    config: str,
    beam_options: PipelineOptions,
    console: Console,
) -> None:
    """Commit one wave as a generation, or go on with one that an earlier job could not finish."""
    out, part, last = options.out, waves.part_name(number), number == plan.last
    if last:
        filesystem.remove_temporary_files(out)
    held = _manifest(out)
    if held is None or number not in {g.number for g in held.generations}:
        withdrawn = removal.withdrawn(out)
        items = [item_of(name, options) for name in waves.read_list(out, number)]
        items = [item for item in items if item.id not in withdrawn]
        said = "the rest" if last else f"wave {number - plan.first + 1} of {plan.waves}"
        if items:
            console.print(f"{said}:")
            extract(items, options, config, beam_options, console, number)
        entries = Ledger(out, part=part).entries()
        if untried := sum(item.id not in entries for item in items):
            raise _not_tried(options, untried)
        done = [i.id for i in items if entries[i.id].kind == Kind.DONE.value]
        packing = _packing(options, config)
        if last:
            planned = generations.plan_rest(out, held, plan.split, number, [], packing)
        else:
            planned = generations.plan_wave(out, plan.split, number, done, packing)
        shards = write_shards(planned, held, options, beam_options)
        with filesystem.exclusive(_lock_path(out), patience=_LOCK_PATIENCE):
            if removal.withdrawn(out) != withdrawn:
                raise UserError("videos were taken out while their wave was written; run the same command again")
            tally.close(out, part)
            held = generations.commit_generation(out, _manifest(out), planned, shards, packing, _vocabulary(out))
        console.print(f"{said}, {_made(planned, shards)}")
    if not options.keep_segments:
        generations.drop_segments_of(out, held, number)
    filesystem.remove_folder(waves.scratch(out, number))
    waves.finish(out, number)


def summarize_waves(plan: WavePlan, options: PreprocessOptions, console: Console) -> int:
    """Say how the items of the whole data folder ended and what it holds; 1 if no video ever became segments."""
    counts = tally.of_data(options.out).counts()
    for reason, count in sorted(counts.items(), key=lambda pair: (pair[0].kind, pair[0].outcome)):
        if reason.kind != Kind.DONE.value:
            console.print(f"{count} {reason.kind}: {reason.outcome}")
    if not any(reason.kind == Kind.DONE.value for reason in counts):
        raise UserError("no video became segments; the reasons are above and in the ledger")
    held = manifest.load(options.out)
    shards, examples = held.shards(), sum(g.examples for g in held.generations)
    console.print(f"{options.out}: {plan.waves} waves finished; {len(shards)} shards, {examples} examples in all")
    return 0


def _list_digest(options: PreprocessOptions) -> str:
    """What tells one list of videos from another, without looking at every entry of a file."""
    if options.ids:
        listed = filesystem.read_bytes(options.ids)
    else:
        listed = "\n".join(item.id for item in list_items(options)).encode()
    return hashlib.sha256(f"{options.limit}\n".encode() + listed).hexdigest()


def _names_to_do(options: PreprocessOptions) -> list[str]:
    """What `item_of` needs of every listed video that has not ended yet, in the order of the list."""
    items = list_items(options)
    # What is done and in no shard was left by a job that did not get to the end.
    final = {kind.value for kind in Kind} - {Kind.DONE.value} - _tried_again(options)
    held = _manifest(options.out)
    packed = [tally.id_digests(generations.videos_of(options.out, g)) for g in (held.generations if held else [])]
    finished = np.concatenate([tally.of_data(options.out).ended(final), *packed])
    known = np.isin(tally.id_digests(item.id for item in items), finished)
    return [_name_of(item) for item, ended in zip(items, known.tolist(), strict=True) if not ended]


def _tried_again(options: PreprocessOptions) -> set[str]:
    return {Kind.FAILED_RETRYABLE.value} if options.retry_failed else set()


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
        names = raw_videos.list_folder(options.videos)
    elif options.ids:
        listed = read_ids(options.ids)
        names = [*listed.ids, *listed.bad]
    else:
        names = raw_videos.list_layout(options.raw)
    return [item_of(name, options) for name in names[: options.limit]]


def item_of(name: str, options: PreprocessOptions) -> Item:
    """The video behind the path of a media file, or behind an id."""
    if options.videos:
        return Item(Path(name).stem, Source.FOLDER, name)
    return Item(name, Source.YOUTUBE if options.ids else Source.LAYOUT, options.raw or "")


def _name_of(item: Item) -> str:
    return item.place if item.source is Source.FOLDER else item.id


def settle_config(options: PreprocessOptions) -> str:
    """Store the config of a new data folder, or check that it is the same. Returns its digest."""
    resolved = {"video": options.video.resolved(), "segments_per_example": options.segments_per_example}
    path = filesystem.join(options.out, CONFIG_NAME)
    if filesystem.exists(path):
        try:
            held = json.loads(filesystem.read_bytes(path))
        except ValueError:
            raise UserError(f"{path!r} is damaged; restore it, or choose another --out") from None
        for name, ours, theirs in _differences(resolved, held):
            raise UsageError(
                f"{options.out!r} was made with {name} {theirs!r}, not {ours!r}; use the same or another --out"
            )
    else:
        filesystem.write_bytes(
            filesystem.join(options.out, TOKENIZER_NAME), vocabulary.content(options.video.tokenizer)
        )
        filesystem.write_bytes(path, (json.dumps(resolved, indent=1) + "\n").encode())
    return options.video.digest()


def _differences(ours: dict, theirs: dict, prefix: str = ""):
    for name in ours:
        a, b = ours[name], theirs.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif json.loads(json.dumps(a)) != b:
            yield f"{prefix}{name}", a, b


def extract(
    items: list[Item],
    options: PreprocessOptions,
    config: str,
    beam_options: PipelineOptions,
    console: Console,
    wave: int | None = None,
) -> None:
    """Commit the segments, or the reason, of every item (of a wave, if one is given) that has none yet."""
    part = None if wave is None else waves.part_name(wave)
    packed = generations.packed_videos(options.out, _manifest(options.out)) if wave is None else set()
    pending = _allowed(_pending(items, options, config, packed, part), options, part)
    console.print(f"{len(items)} videos, {len(items) - len(pending)} finished before, {len(pending)} to do")
    if not pending:
        return
    decode = Extract(_for_workers(options), options.limits, _scratch(options.out, wave), options.keep_media)
    with ExtractionProgress(Ledger(options.out, part=part).folder, len(pending), console) as progress:
        pipeline = new_pipeline(beam_options, log_path(options.out))
        _ = (
            pipeline
            | "Name the videos" >> beam.Create(pending, reshuffle=False)
            | "Spread them over the workers" >> beam.Reshuffle()
            | "Fetch" >> beam.ParDo(Fetch(_for_workers(options), options.download, options.out, options.politeness))
            | "Filter, align, segment and extract" >> beam.ParDo(decode)
            | "Commit the segments" >> beam.ParDo(Commit(options.out, options.split, config, part))
        )
        run_to_end(pipeline, progress.tick)
        progress.look()
        console.print(progress.sentence().rsplit(",", 1)[0])


def download(
    items: list[Item], options: PreprocessOptions, config: str, beam_options: PipelineOptions, console: Console
) -> int:
    """Bring the raw videos into the folder --raw; failures go to the ledger, what is there waits for extraction."""
    packed = generations.packed_videos(options.out, _manifest(options.out))
    pending = _allowed(_pending(items, options, config, packed), options)
    pending = [item for item in pending if not is_here(item, options.out)]
    pipeline = new_pipeline(beam_options, log_path(options.out))
    _ = (
        pipeline
        | "Name the videos" >> beam.Create(pending, reshuffle=False)
        | "Spread them over the workers" >> beam.Reshuffle()
        | "Fetch" >> beam.ParDo(Fetch(_for_workers(options), options.download, options.out, options.politeness))
        | "Leave what arrived" >> beam.Filter(lambda fetched: isinstance(fetched, Extracted))
        | "Record what did not" >> beam.ParDo(Commit(options.out, options.split, config))
    )
    if pending:
        run_to_end(pipeline, lambda: None)
    entries = Ledger(options.out).entries()
    away = [item for item in items if not is_here(item, options.out)]
    console.print(f"{len(items) - len(away)} of {len(items)} videos are in {options.raw}")
    _require_tried(options, sum(item.id not in entries for item in away))
    return 0


def _for_workers(options: PreprocessOptions) -> VideoConfig:
    """The config with the vocabulary where every worker finds it: workers elsewhere have no local files."""
    if not filesystem.is_remote(options.out):
        return options.video
    return dataclasses.replace(options.video, tokenizer=filesystem.join(options.out, TOKENIZER_NAME))


def _scratch(out: str, wave: int | None) -> str | None:
    """Where workers put temporary files: beside the data if these are on a disk."""
    if filesystem.is_remote(out):
        return None
    if wave is None:
        return out
    # What a killed job left of this wave goes; that of other waves belongs to jobs that are at work.
    filesystem.remove_folder(waves.scratch(out, wave))
    filesystem.make_folder(waves.scratch(out, wave))
    return waves.scratch(out, wave)


def _pending(
    items: list[Item], options: PreprocessOptions, config: str, packed: set[str], part: str | None = None
) -> list[Item]:
    """The items without an outcome; one whose segments are committed but not in the ledger gets its line now."""
    store, ledger = SegmentStore(segments_folder(options.out)), Ledger(options.out, part=part)
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


def _allowed(items: list[Item], options: PreprocessOptions, part: str | None = None) -> list[Item]:
    """The items that are not on the block list; the others get their outcome."""
    if options.blocklist is None:
        return items
    listed = read_ids(options.blocklist)
    blocked, ledger = {*listed.ids, *listed.bad}, Ledger(options.out, "blocklist", part)
    for item in items:
        if item.id in blocked:
            result = Result(Outcome.BLOCKED, Outcome.BLOCKED.sentence, {}, VideoText(item.id))
            ledger.append(entry_of(Extracted(result, 0.0), options.split))
    return [item for item in items if item.id not in blocked]


def _again(entry: Entry, options: PreprocessOptions) -> bool:
    return entry.kind in _tried_again(options)


def assemble(options: PreprocessOptions, config: str, beam_options: PipelineOptions, console: Console) -> None:
    """Pack what is committed and not yet packed into a new generation of shards."""
    held = _manifest(options.out)
    entries = Ledger(options.out).entries().values()
    committed = [e.id for e in entries if e.kind == Kind.DONE.value and e.split == options.split]
    packing = _packing(options, config)
    plan = generations.plan_generation(options.out, held, options.split, committed, packing)
    if plan:
        shards = write_shards(plan, held, options, beam_options)
        held = generations.commit_generation(options.out, held, plan, shards, packing, _vocabulary(options.out))
        console.print(_made(plan, shards))
    if held and not options.keep_segments:
        generations.drop_packed_segments(options.out, held)


def write_shards(
    plan: GenerationPlan, held: Manifest | None, options: PreprocessOptions, beam_options: PipelineOptions
) -> list[Shard]:
    """Write the planned shards. Raises `UserError` if one is missing in the end."""
    generations.discard_unfinished(options.out, held, plan)
    if plan.shards:
        pipeline = new_pipeline(beam_options, log_path(options.out))
        _ = (
            pipeline
            | "Plan the shards" >> beam.Create(plan.shards, reshuffle=False)
            | "Spread the plans over the workers" >> beam.Reshuffle()
            | "Write the shards" >> beam.ParDo(WriteShard(options.out))
        )
        run_to_end(pipeline, lambda: None)
    shards = [writer.finished_shard(options.out, s.name, s.digest) for s in plan.shards]
    if missing := [s.name for s, shard in zip(plan.shards, shards, strict=True) if shard is None]:
        raise UserError(f"the shard {missing[0]!r} was not written; run the same command again")
    return shards


def _packing(options: PreprocessOptions, config: str) -> Packing:
    return Packing(options.video.seed, config, options.segments_per_example, options.shard_bytes)


def _vocabulary(out: str) -> str:
    return vocabulary.digest(filesystem.join(out, TOKENIZER_NAME))


def _made(plan: GenerationPlan, shards: list[Shard]) -> str:
    return (
        f"generation {plan.number}: {len(plan.videos)} videos in {len(shards)} shards,"
        f" {sum(s.examples for s in shards)} examples; {sum(map(len, plan.remainder))} segments wait for the next"
    )


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
    _require_tried(options, len(items) - len(named))
    if not any(e.kind == Kind.DONE.value for e in entries.values()):
        raise UserError("no video became segments; the reasons are above and in the ledger")
    if held := _manifest(options.out):
        console.print(f"{options.out}: {_totals(held, options.out)}")
    return 0


def _totals(held: Manifest, data: str) -> str:
    summary = stats.summarize(data, held)
    return (
        f"{summary.shards} shards, {summary.counts['examples']} examples, {summary.counts['segments']} segments of"
        f" {summary.videos} videos, {summary.seconds / 3600:.2f} hours, {summary.bytes / 1e6:.1f} MB"
    )


def _require_tried(options: PreprocessOptions, untried: int) -> None:
    """Raises `UserError` if downloading stopped before every item was tried."""
    if Breaker(options.out).is_open() or (untried > 0 and _why_stopped(options)):
        raise _not_tried(options, untried)


def _not_tried(options: PreprocessOptions, count: int) -> UserError:
    """Why not every item was tried."""
    why = _why_stopped(options) or "the job ended too early; run the same command again"
    return UserError(f"downloading stopped, {count} videos were not tried and what was finished is kept: {why}")


def _why_stopped(options: PreprocessOptions) -> str | None:
    """Why nothing is downloaded any more and what to do, `None` where that is not so."""
    breaker, left = Breaker(options.out), Budget(options.out, options.politeness).seconds_left()
    if breaker.is_open():
        return f"{breaker.reason().sentence} Run the same command again some hours later"
    if left > 0:
        limit = options.politeness.downloads_per_day
        return f"{limit} a day from one address are used up; run the same command again in {left / 3600:.1f} hours"
    return None


def _manifest(data: str) -> Manifest | None:
    return manifest.load(data) if filesystem.exists(filesystem.join(data, manifest.NAME)) else None


def _lock_path(out: str) -> str:
    return filesystem.join(out, ".lock")


if __name__ == "__main__":
    run_and_leave(main)
