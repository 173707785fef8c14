"""Run the preprocessing job and report the outcomes of its videos."""

from __future__ import annotations

import json

from rich.console import Console

from ingest.models import check_config
from pipelines.extraction import embedders
from pipelines.extraction.untried import Reason, closing_sentence
from pipelines.preprocessing import graph
from pipelines.preprocessing.commit_generation import REPORT
from pipelines.preprocessing.job_config import commit_config
from pipelines.preprocessing.listing import list_of, notes_of
from pipelines.preprocessing.marker import require_marker
from pipelines.preprocessing.mix_text import described
from pipelines.preprocessing.options import BeamFlags, PreprocessOptions
from pipelines.preprocessing.status_report import note_start
from pipelines.runner import beam_flags, data_folder
from pipelines.runner.execution import new_pipeline, prepare_workers, run_to_end
from pipelines.runner.progress import StoreProgress
from shards.dataset import location as dataset
from shards.dataset import manifest
from shards.dataset.manifest import Manifest
from shards.inspection import stats
from shards.outcomes import Kind, Outcome
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.storage.stored_config import CONFIG_NAME


def run(options: PreprocessOptions, flags: BeamFlags) -> int:
    """Run the job and return the exit status."""
    beam_options = beam_flags.beam_options(flags)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if options.stage != "assemble":
        check_config(options.video)
        embedders.load(options.video.embedder)
    prepare_workers(beam_options)
    if options.stage != "assemble" and not filesystem.is_remote(options.ids or options.videos or options.raw or ""):
        # Reading the first entry reports a wrong name before the job starts.
        next(list_of(options).read())
    for note in notes_of(options):
        console.print(f"note: {note}")
    if options.dry_run:
        from pipelines.preprocessing import dry_run

        return dry_run.report(options, console)
    # In a bucket no lock is needed: every object is written with a precondition.
    with data_folder.opened(options.out, lock=not filesystem.is_remote(options.out)):
        config = commit_config(options)
        note_start(options.out, options.command)
        pipeline = new_pipeline(beam_options, data_folder.log_path(options.out), options.job)
        graph.build(pipeline, options, config)
        with StoreProgress(options.out, console) as progress:
            try:
                finished = run_to_end(pipeline, progress.tick, console)
            except UserError:
                # If the folder itself is gone, report that instead of the first file that could not be accessed.
                require_marker(filesystem.join(options.out, CONFIG_NAME))
                raise
        return summarize(options, console) if finished else 0


def summarize(options: PreprocessOptions, console: Console) -> int:
    """Print the outcomes of the run's videos and the totals of the folder.

    Raises `UserError` if videos were not tried, or if the folder has no video with segments.
    """
    report = json.loads(filesystem.read_bytes(filesystem.join(options.out, REPORT)))
    known, new = sum(report["known"].values()), sum(count for _, _, count in report["outcomes"])
    console.print(f"{known + new} videos: {known} finished before, {new} finished now")
    for source, counts in sorted(report["text"].items()):
        console.print(f"text {source!r}: {described(counts)}")
    for kind, outcome, count in report["outcomes"]:
        if kind != Kind.DONE.value:
            example = report["samples"][outcome][0]
            console.print(f"{count} {kind}: {outcome}. {Outcome(outcome).sentence} For example {example!r}.")
    committed = manifest.find(options.out)
    if committed and committed.generations:
        console.print(f"{options.out}: {_totals(options.out, committed)}")
    not_tried = {Reason(reason): count for reason, count in report["not_tried"].items()}
    if sentence := closing_sentence(not_tried):
        raise UserError(sentence)
    if options.stage in ("all", "assemble"):
        done = committed and any(generation.videos for generation in committed.generations)
        if not done:
            raise UserError("no video produced segments; the reasons are above and in the ledger")
    return 0


def _totals(out: str, committed: Manifest) -> str:
    summary = stats.summarize(dataset.open_data(out))
    last = committed.generations[-1]
    pending = sum(stop - first for _, first, stop in last.remainder)
    return (
        f"{summary.shards} shards, {summary.counts['examples']} examples, {summary.counts['segments']} segments of"
        f" {summary.videos} videos, {summary.seconds / 3600:.2f} hours, {summary.bytes / 1e6:.1f} MB; generation"
        f" {last.number} has {last.videos} videos, {pending} segments remain for the next one"
    )
