"""Build the preprocessing job as one Beam graph, from the list of videos to the manifest, for any runner.

Neither the size of the graph nor the data read to build it depends on the number of videos.
"""

from __future__ import annotations

import dataclasses
import time
import uuid

import apache_beam as beam

from ingest.config import VideoConfig
from pipelines.preprocessing.assemble_shards import AssembleShards, Assembly
from pipelines.preprocessing.commit_generation import CommitGeneration, Commitment, ReportRun, undropped
from pipelines.preprocessing.extract_videos import DownloadVideos, ExtractVideos
from pipelines.preprocessing.fetch_videos import Extraction
from pipelines.preprocessing.listing import list_of
from pipelines.preprocessing.mix_text import MixText, TextMixture, list_pieces
from pipelines.preprocessing.options import PreprocessOptions
from pipelines.preprocessing.replay_rules import Replay, ReplayRules
from pipelines.preprocessing.select_videos import ReadCommitted, SelectVideos
from pipelines.runner.beam_types import PCollection
from pipelines.runner.data_folder import vocabulary_of
from shards.dataset import ledger, manifest, removal, text_store
from shards.dataset.generations import waiting_runs
from shards.dataset.manifest import Manifest
from shards.dataset.planning import Packing
from shards.dataset.video_store import VideoTable
from shards.outcomes import Kind
from shards.storage import filesystem
from shards.storage.stored_config import CONFIG_NAME
from shards.tokenizer_file import TOKENIZER_NAME


def build(pipeline: beam.Pipeline, options: PreprocessOptions, config: str) -> None:
    """Add the stages that `options` request; `config` is the digest of the configuration of the segments."""
    committed = manifest.find(options.out)
    ledgers = ledgers_of(options.out, committed)
    if options.stage == "assemble":
        tables = pipeline | "Read committed videos" >> ReadCommitted(options.out, config, ledgers)
        empty = pipeline | "No list" >> beam.Create([], reshuffle=False)
        _assemble(tables, empty, empty, options, config, committed)
        return
    select = SelectVideos(list_of(options), options.blocklist, ledgers, options.retry_failed)
    videos, known = pipeline | "Select videos" >> select
    extraction = extraction_of(options, config)
    if options.stage == "download":
        tables, not_tried = videos | "Download videos" >> DownloadVideos(extraction)
    else:
        tables, not_tried = videos | "Extract videos" >> ExtractVideos(extraction)
    if options.stage == "all":
        _assemble(tables, known, not_tried, options, config, committed)
    else:
        _ = tables | "Report" >> ReportRun(options.out, known, not_tried)


def build_refiltered(pipeline: beam.Pipeline, options: PreprocessOptions, config: str, replay: Replay) -> None:
    """Add the stages that create a data folder from the stored segments of another one, with other thresholds."""
    tables = pipeline | "Replay the rules" >> ReplayRules(replay, options.out, config, options.split)
    empty = pipeline | "No list" >> beam.Create([], reshuffle=False)
    _assemble(tables, empty, empty, options, config, manifest.find(options.out))


def _assemble(
    tables: PCollection,
    known: PCollection,
    not_tried: PCollection,
    options: PreprocessOptions,
    config: str,
    committed: Manifest | None,
) -> None:
    """Add the stages from the tables of videos to a committed generation."""
    assembly = assembly_of(options, config, committed)
    mixture = mixture_of(options, committed)
    with_segments = tables | "Keep videos with segments" >> beam.Filter(
        lambda table: VideoTable.unpack(table).kind == Kind.DONE.value
    )
    assembled = with_segments | "Assemble shards" >> AssembleShards(assembly, MixText(mixture) if mixture else None)
    commitment = Commitment(
        assembly,
        config,
        vocabulary_of(options.out),
        removal.withdrawn_digest(options.out),
        options.keep_segments,
        tuple(source.name for source in options.text.sources()),
        _undropped_ledgers(options.out, committed),
        filesystem.join(options.out, CONFIG_NAME),
    )
    _ = tables | "Commit the generation" >> CommitGeneration(commitment, assembled, known, not_tried)


def ledgers_of(out: str, committed: Manifest | None) -> tuple[str, ...]:
    """Return the paths of the ledgers of all generations and of removed videos."""
    paths = [path for g in (committed.generations if committed else []) for path in ledger.parts_of(out, g)]
    removals = ledger.removals_path(out)
    return tuple(paths + ([removals] if committed and filesystem.exists(removals) else []))


def _undropped_ledgers(out: str, committed: Manifest | None) -> tuple[str, ...]:
    numbers = set(undropped(out))
    generations = [g for g in (committed.generations if committed else []) if g.number in numbers]
    return tuple(path for generation in generations for path in ledger.parts_of(out, generation))


def assembly_of(options: PreprocessOptions, config: str, committed: Manifest | None) -> Assembly:
    """Return the generation that a command adds to the committed ones."""
    split, rules = options.split, options.group_rules
    packing = Packing(
        options.video.seed,
        config,
        options.segments_per_example,
        options.shard_bytes,
        repr(rules) if rules.active else "",
    )
    return Assembly(
        options.out,
        split,
        committed.next_number() if committed else 0,
        packing,
        rules,
        tuple((run.video_id, run.first, run.stop) for run in waiting_runs(committed, split)),
        tuple(generation.number for generation in (committed.waiting(split) if committed else [])),
    )


def mixture_of(options: PreprocessOptions, committed: Manifest | None) -> TextMixture | None:
    """Return the text corpora that a command requests. Raises `UserError` for a corpus without files."""
    if not options.text.text:
        return None
    tokenizer = filesystem.join(options.out, TOKENIZER_NAME)
    pieces = list_pieces(options.text, tokenizer, options.video.seed)
    return TextMixture(options.out, tokenizer, options.video.seed, options.text, pieces, text_store.used(committed))


def extraction_of(options: PreprocessOptions, config: str) -> Extraction:
    """Return how a command fetches and extracts videos."""
    return Extraction(
        options.out,
        _for_workers(options),
        config,
        options.download,
        options.politeness,
        options.limits,
        run=uuid.uuid4().hex[:12],
        marker=filesystem.join(options.out, CONFIG_NAME),
        keep_media=options.keep_media,
        retry_before=time.time() if options.retry_failed else 0.0,
    )


def _for_workers(options: PreprocessOptions) -> VideoConfig:
    """Return the config with a tokenizer that every worker can read: remote workers have no local files."""
    if not filesystem.is_remote(options.out):
        return options.video
    return dataclasses.replace(options.video, tokenizer=filesystem.join(options.out, TOKENIZER_NAME))
