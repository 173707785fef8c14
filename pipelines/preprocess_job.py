"""The main job, stage by stage: which videos, extraction, assembly, and what became of them."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from ingest.models import check_config
from ingest.outcomes import Kind, Outcome
from pipelines import beam_flags, embedders
from pipelines.assembly import assemble
from pipelines.execution import prepare_workers
from pipelines.folder import keep_log, lock_path, log_path, manifest_of, settle_config
from pipelines.intake import download, extract, require_tried
from pipelines.items import list_items
from pipelines.options import BeamFlags, PreprocessOptions, is_launch
from pipelines.status import note_start
from pipelines.transforms import Item
from shards import dataset, filesystem, waves
from shards.errors import UserError
from shards.inspection import card, stats
from shards.ledger import Ledger
from shards.manifest import Manifest


def run(options: PreprocessOptions, flags: BeamFlags) -> int:
    """Do the job and return the exit status."""
    beam_options = beam_flags.beam_options(flags)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if options.stage != "assemble":
        check_config(options.video)
        embedders.load(options.video.embedder)
    prepare_workers(beam_options)
    if options.wave and not options.dry_run:
        from pipelines.wave_job import run_waves

        return run_waves(options, beam_options, console)
    items = [] if options.stage == "assemble" else list_items(options)
    if options.dry_run:
        from pipelines import dry_run

        return dry_run.report(items, options, console)
    filesystem.make_folder(options.out)
    if is_launch(flags):
        from pipelines.launch import launch

        return launch(items, options, beam_options, console)
    with filesystem.exclusive(lock_path(options.out)):
        waves.require_finished(options.out)
        keep_log(log_path(options.out))
        filesystem.remove_temporary_files(options.out)
        config = settle_config(options)
        if options.stage == "download":
            return download(items, options, config, beam_options, console)
        if options.stage in ("extract", "all"):
            note_start(options.out, len(items), options.command)
            extract(items, options, config, beam_options, console)
        if options.stage in ("assemble", "all"):
            assemble(options, config, beam_options, console)
        return summarize(items, options, console)


def summarize(items: list[Item], options: PreprocessOptions, console: Console) -> int:
    """Print the outcomes of the items and the totals of the folder; return 1 if no video ever became segments."""
    entries = Ledger(options.out).entries()
    named = [entries[item.id] for item in items if item.id in entries] if items else list(entries.values())
    reasons = Counter((e.kind, e.outcome) for e in named if e.kind != Kind.DONE.value)
    for (kind, outcome), count in sorted(reasons.items()):
        example = next(e for e in named if e.outcome == outcome)
        sentence = Outcome(outcome).sentence
        more = "" if example.detail == sentence else f" {example.detail}"
        console.print(f"{count} {kind}: {outcome}. {sentence} For example {example.id!r}.{more}")
    require_tried(options, len(items) - len(named))
    if not any(e.kind == Kind.DONE.value for e in entries.values()):
        raise UserError("no video became segments; the reasons are above and in the ledger")
    if held := manifest_of(options.out):
        console.print(f"{options.out}: {_totals(held, options.out)}")
        card.write(dataset.open_data(options.out))
    return 0


def _totals(held: Manifest, data: str) -> str:
    summary = stats.summarize(data, held)
    return (
        f"{summary.shards} shards, {summary.counts['examples']} examples, {summary.counts['segments']} segments of"
        f" {summary.videos} videos, {summary.seconds / 3600:.2f} hours, {summary.bytes / 1e6:.1f} MB"
    )
