"""From videos to committed segments: the pipelines that download and extract, and why they may stop early.

Every item they are given ends with a line in the ledger; what a stopped job did not try has none and is tried by the
next.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest.config import VideoConfig
from pipelines.breaker import Breaker
from pipelines.execution import new_pipeline, run_to_end
from pipelines.extraction import Extracted
from pipelines.folder import TOKENIZER_NAME, log_path, manifest_of
from pipelines.items import allowed, to_do
from pipelines.not_tried import OUTPUT, Reason, closing_sentence
from pipelines.options import PreprocessOptions
from pipelines.progress import ExtractionProgress
from pipelines.transforms import Commit, Extract, Fetch, Item, is_here
from shards import filesystem, generations, waves
from shards.errors import UserError
from shards.ledger import Ledger


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
    pending = pending_items(items, options, config, wave)
    console.print(f"{len(items)} videos, {len(items) - len(pending)} finished before, {len(pending)} to do")
    if not pending:
        return
    pipeline = new_pipeline(beam_options, log_path(options.out), options.job(f"extract {part}"))
    with ExtractionProgress(Ledger(options.out, part=part).folder, len(pending), console) as progress:
        committed(pipeline, pending, options, config, wave)
        run_to_end(pipeline, progress.tick)
        progress.look()
        console.print(progress.sentence().rsplit(",", 1)[0])


def pending_items(items: list[Item], options: PreprocessOptions, config: str, wave: int | None = None) -> list[Item]:
    """The items (of a wave, if one is given) that have no outcome yet and are not blocked."""
    part = None if wave is None else waves.part_name(wave)
    packed = generations.packed_videos(options.out, manifest_of(options.out)) if wave is None else set()
    return allowed(to_do(items, options, config, packed, part), options, part)


def committed(
    pipeline: beam.Pipeline, pending: list[Item], options: PreprocessOptions, config: str, wave: int | None = None
) -> beam.PCollection:
    """The ids of the items once they have ended: their segments are in the store or their reason in the ledger."""
    part = None if wave is None else waves.part_name(wave)
    decode = Extract(_for_workers(options), options.limits, _scratch(options.out, wave), options.keep_media)
    return (
        _fetched(pipeline, pending, options)
        | "Filter, align, segment and extract" >> beam.ParDo(decode)
        | "Commit the segments" >> beam.ParDo(Commit(options.out, options.split, config, part))
    )


def download(
    items: list[Item], options: PreprocessOptions, config: str, beam_options: PipelineOptions, console: Console
) -> int:
    """Bring the raw videos into the folder --raw; failures go to the ledger, what is there waits for extraction."""
    pending = [item for item in pending_items(items, options, config) if not is_here(item, options.out)]
    pipeline = new_pipeline(beam_options, log_path(options.out), options.job("download"))
    _ = (
        _fetched(pipeline, pending, options)
        | "Leave what arrived" >> beam.Filter(lambda fetched: isinstance(fetched, Extracted))
        | "Record what did not" >> beam.ParDo(Commit(options.out, options.split, config))
    )
    if pending:
        run_to_end(pipeline, lambda: None)
    entries = Ledger(options.out).entries()
    away = [item for item in items if not is_here(item, options.out)]
    console.print(f"{len(items) - len(away)} of {len(items)} videos are in {options.raw}")
    require_tried(options, sum(item.id not in entries for item in away))
    return 0


def _fetched(pipeline: beam.Pipeline, pending: list[Item], options: PreprocessOptions) -> beam.PCollection:
    """The raw videos of the items, or how those ended that cannot be had."""
    fetch = Fetch(_for_workers(options), options.download, options.out, options.politeness, run_token())
    outputs = (
        pipeline
        | "Name the videos" >> beam.Create(pending, reshuffle=False)
        | "Spread them over the workers" >> beam.Reshuffle()
        | "Fetch" >> beam.ParDo(fetch).with_outputs(OUTPUT, main="fetched")
    )
    return outputs.fetched


@functools.cache
def run_token() -> str:
    """What tells this run from every other one."""
    return uuid.uuid4().hex


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


def require_tried(options: PreprocessOptions, untried: int) -> None:
    """Raises `UserError` if downloading stopped before every item was tried."""
    if untried > 0:
        raise not_tried(options, untried)


def not_tried(options: PreprocessOptions, count: int) -> UserError:
    """Why not every item was tried."""
    reason = _why_stopped(options)
    if reason is None:
        why = f"the job's counters {OUTPUT}-... say why"
        return UserError(f"{count} videos were not tried, {why}; run the same command again")
    return UserError(closing_sentence({reason: count}))


def _why_stopped(options: PreprocessOptions) -> Reason | None:
    """Why nothing is downloaded any more, `None` where that is not so; for workers on this machine."""
    limited = options.politeness.downloads_per_day is not None
    return Breaker(run_token()).reason() or (Reason.DAILY_LIMIT if limited else None)
