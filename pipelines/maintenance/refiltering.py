"""Apply other thresholds to the scores in a ledger, and create the data folder that they would have produced."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ingest.config import VideoConfig
from ingest.language_codes import base_language
from pipelines.maintenance.options import RefilterOptions
from pipelines.maintenance.thresholds import changed
from pipelines.preprocessing import folder_config
from pipelines.preprocessing.folder_config import FolderConfig
from pipelines.preprocessing.options import PreprocessOptions
from pipelines.preprocessing.replay_rules import Replay
from pipelines.runner import beam_flags, data_folder
from shards.dataset import ledger, manifest, removal
from shards.inspection.plain_table import PlainTable
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError
from shards.storage.stored_config import CONFIG_NAME
from shards.tokenizer_file import TOKENIZER_NAME

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


_EXAMPLES = 3


def refilter(options: RefilterOptions, flags: Sequence[str]) -> int:
    """Print what other thresholds would change, create the new data folder if requested, and return the exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    config = folder_config.read(options.data)
    embedder = folder_config.embedder(config.embedder, options.embedder) if options.out else config.embedder
    filters = changed(config.filters, options.changes)
    language = base_language(config.language)
    committed = manifest.load(options.data)
    if committed.folders():
        raise UsageError(f"{options.data!r} was merged from {', '.join(committed.folders())}; refilter each of these")
    ledgers = tuple(path for g in committed.generations for path in ledger.parts_of(options.data, g))
    withdrawn = frozenset(removal.withdrawn(options.data))
    replay = Replay(options.data, ledgers, language, filters, withdrawn)
    counts = tally(replay)
    console.print(report(counts))
    if counts.regained:
        count = counts.regained.total()
        console.print(f"{count} would be extracted by a new run with these thresholds, which refiltering cannot do")
    if options.out:
        assemble(options, options.out, config, embedder, replay, counts, beam_flags.beam_options(flags), console)
    return 0


@dataclass
class Counts:
    """Numbers of videos that other thresholds keep (by split), drop (by rule), and would extract (by former outcome).

    `samples` are some ids by (decision, rule or outcome).
    """

    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    regained: Counter[str] = field(default_factory=Counter)
    samples: dict[tuple[str, str], list[str]] = field(default_factory=dict)


def tally(replay: Replay) -> Counts:
    """Count the decisions about every video that reached a rule with a threshold."""
    counts = Counts()
    for entry in replay.entries():
        decision, rule = replay.decide(entry)
        if decision in ("kept", "dropped", "regained"):
            name = entry.split if decision == "kept" else rule.value if rule else entry.outcome
            getattr(counts, decision)[name] += 1
            ids = counts.samples.setdefault((decision, name), [])
            if len(ids) < _EXAMPLES:
                ids.append(entry.id)
    return counts


def report(counts: Counts) -> Table:
    """Return a table of what would change, by rule."""
    table = PlainTable("", "rule", "videos", "for example", title="with these thresholds")
    table.add_row("still kept", "", str(counts.kept.total()), "")
    for title, decision in (("dropped", "dropped"), ("no longer rejected", "regained")):
        for name, count in getattr(counts, decision).most_common():
            table.add_row(title, name, str(count), ", ".join(counts.samples[decision, name]))
    return table


def assemble(
    options: RefilterOptions,
    out: str,
    config: FolderConfig,
    embedder: str,
    replay: Replay,
    counts: Counts,
    beam_options: PipelineOptions,
    console: Console,
) -> None:
    """Create the data folder `out`. Raises `UserError` if it exists or the segments were not kept."""
    from pipelines.preprocessing import graph
    from pipelines.preprocessing import job as preprocess_job
    from pipelines.runner.execution import new_pipeline, prepare_workers, run_to_end

    if filesystem.exists(filesystem.join(out, CONFIG_NAME)):
        raise UserError(f"{out!r} already contains data; choose another --out")
    if not counts.kept:
        raise UserError("these thresholds keep no video; change them to create a data set")
    rules = dataclasses.asdict(replay.filters) | {"excluded_categories": list(replay.filters.excluded_categories)}
    video = config.values["video"] | {"filters": rules}
    values = config.values | {"video": video, "text": options.text.resolved()}
    digest = hashlib.sha256(json.dumps(video, sort_keys=True).encode()).hexdigest()
    tokenizer = filesystem.read_bytes(filesystem.join(options.data, TOKENIZER_NAME))
    prepare_workers(beam_options)
    with data_folder.opened(out):
        filesystem.write_bytes(filesystem.join(out, TOKENIZER_NAME), tokenizer)
        content = f"{json.dumps(values, indent=1)}\n".encode()
        filesystem.write_bytes(filesystem.join(out, CONFIG_NAME), content)
        for split in sorted(counts.kept):
            job = _job(options, out, config, embedder, split)
            pipeline = new_pipeline(beam_options, data_folder.log_path(out), job.job)
            graph.build_refiltered(pipeline, job, digest, replay)
            run_to_end(pipeline, lambda: None, console)
            preprocess_job.summarize(job, console)


def _job(options: RefilterOptions, out: str, config: FolderConfig, embedder: str, split: str) -> PreprocessOptions:
    """Return the options of the job that packs one split of the new folder."""
    groups = config.groups
    return PreprocessOptions(
        out,
        split=split,
        stage="assemble",
        keep_segments=options.keep_segments,
        shard_bytes=options.shard_bytes,
        segments_per_example=config.segments_per_example,
        max_group_similarity=groups["max_similarity"],
        min_group_objects=groups["min_objects"],
        group_probability=config.group_probability,
        text=options.text,
        video=VideoConfig(seed=config.seed, embedder=embedder),
    )
