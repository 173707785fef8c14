"""The rules played again over the scores in a ledger, and the data folder that other thresholds would have made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ingest.config import FilterConfig, VideoConfig
from ingest.filters import broken_rule
from ingest.outcomes import Kind, Outcome
from pipelines import beam_flags, folder
from pipelines.options import PreprocessOptions
from pipelines.thresholds import changed
from shards import filesystem
from shards.errors import UsageError, UserError
from shards.ledger import Entry, Ledger
from shards.segments import SegmentStore, segments_folder

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.refilter import Options

RULES = frozenset(
    (
        Outcome.TOO_LONG,
        Outcome.CATEGORY,
        Outcome.SPARSE_SPEECH,
        Outcome.OTHER_LANGUAGE,
        Outcome.BAD_WORDS,
        Outcome.UNEVEN_WORDS,
        Outcome.TOO_ALIKE,
        Outcome.TOO_EMPTY,
    )
)
"""Reasons that a threshold decides about."""

_EXAMPLES = 3


def refilter(options: Options, flags: Sequence[str]) -> int:
    """Print what other thresholds would change, make the new data folder if one is wanted; returns the exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    config = _read_config(options.data)
    filters = changed(_filters(config["video"]["filters"]), options.changes)
    language = config["video"]["language"].split("-")[0]
    played = replay(Ledger(options.data).entries().values(), language, filters)
    console.print(report(played))
    if played.regained:
        console.print(
            f"{len(played.regained)} would be extracted by a new run with these thresholds; here they are not"
        )
    if options.out:
        assemble(options, config, filters, played, beam_flags.beam_options(flags), console)
    return 0


@dataclass(frozen=True)
class Replay:
    """What other thresholds say of the items of a ledger, each list in the order of their ids.

    `kept` were extracted and still pass, `dropped` were extracted and break the rule named, `regained` were rejected
    and now pass what is known of them: they must be extracted.
    """

    kept: list[Entry]
    dropped: list[tuple[Entry, Outcome]]
    regained: list[Entry]


def replay(entries: Iterable[Entry], language: str, filters: FilterConfig) -> Replay:
    """What these thresholds say of every item that came as far as a rule with a threshold."""
    played = Replay([], [], [])
    rules = {rule.value for rule in RULES}
    for entry in sorted(entries, key=lambda e: e.id):
        broken = broken_rule(entry.scores, language, filters)
        if entry.kind == Kind.DONE.value:
            if broken:
                played.dropped.append((entry, broken))
            else:
                played.kept.append(entry)
        elif entry.outcome in rules and not broken:
            played.regained.append(entry)
    return played


def report(played: Replay) -> Table:
    """What would change, by rule."""
    table = Table("", "rule", "videos", "for example", title="with these thresholds")
    table.add_row("still kept", "", str(len(played.kept)), "")
    dropped = Counter(outcome.value for _, outcome in played.dropped)
    for rule, count in dropped.most_common():
        table.add_row("dropped", rule, str(count), _some(e for e, o in played.dropped if o.value == rule))
    regained = Counter(entry.outcome for entry in played.regained)
    for rule, count in regained.most_common():
        table.add_row("no longer rejected", rule, str(count), _some(e for e in played.regained if e.outcome == rule))
    return table


def assemble(
    options: Options,
    config: dict[str, Any],
    filters: FilterConfig,
    played: Replay,
    beam_options: PipelineOptions,
    console: Console,
) -> None:
    """Make the new data folder. Raises `UserError` if it is in use or the segments were not kept."""
    from pipelines import assembly, preprocess_job
    from pipelines.execution import prepare_workers

    if filesystem.exists(filesystem.join(options.out, folder.CONFIG_NAME)):
        raise UserError(f"{options.out!r} holds data already; choose another --out")
    if not played.kept:
        raise UserError("these thresholds keep no video; nothing is made")
    rules = dataclasses.asdict(filters) | {"excluded_categories": list(filters.excluded_categories)}
    config = config | {"video": config["video"] | {"filters": rules}, "text": options.text.resolved()}
    digest = hashlib.sha256(json.dumps(config["video"], sort_keys=True).encode()).hexdigest()
    old, new = SegmentStore(segments_folder(options.data)), SegmentStore(segments_folder(options.out))
    tokenizer = filesystem.read_bytes(filesystem.join(options.data, folder.TOKENIZER_NAME))
    prepare_workers(beam_options)
    filesystem.make_folder(options.out)
    with filesystem.exclusive(filesystem.join(options.out, ".lock")):
        folder.keep_log(folder.log_path(options.out))
        ledger = Ledger(options.out, "refilter")
        for entry in played.kept:
            video = old.get(entry.id)
            new.commit(video.text, old.read(video, 0, len(video.spans)), digest, video.scores)
            ledger.append(entry)
        for entry, broken in played.dropped:
            ended = {"outcome": broken.value, "kind": broken.kind.value, "detail": broken.sentence, "segments": 0}
            ledger.append(dataclasses.replace(entry, **ended))
        filesystem.write_bytes(filesystem.join(options.out, folder.TOKENIZER_NAME), tokenizer)
        content = f"{json.dumps(config, indent=1)}\n".encode()
        filesystem.write_bytes(filesystem.join(options.out, folder.CONFIG_NAME), content)
        for split in sorted({entry.split for entry in played.kept}):
            assembly.assemble(_job(options, config, split), digest, beam_options, console)
        preprocess_job.summarize([], _job(options, config, "train"), console)


def _job(options: Options, config: dict[str, Any], split: str) -> PreprocessOptions:
    """The job that packs one split of the new folder."""
    groups = config["groups"]
    return PreprocessOptions(
        options.out,
        split=split,
        stage="assemble",
        keep_segments=options.keep_segments,
        shard_bytes=options.shard_bytes,
        segments_per_example=config["segments_per_example"],
        max_group_similarity=groups["max_similarity"],
        min_group_objects=groups["min_objects"],
        group_probability=groups["probability"],
        text=options.text,
        video=VideoConfig(seed=config["video"]["seed"], embedder=config["video"]["embedder"]),
    )


def _read_config(data: str) -> dict[str, Any]:
    path = filesystem.join(data, folder.CONFIG_NAME)
    if not filesystem.exists(path):
        raise UsageError(f"{data!r} holds no {folder.CONFIG_NAME}; give the folder that preprocess made")
    try:
        held = json.loads(filesystem.read_bytes(path))
        missing = {"filters", "language", "seed", "embedder"}.difference(held["video"])
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path!r} is damaged; restore it") from None
    if missing or "groups" not in held:
        raise UserError(f"{path!r} is of an earlier version, whose ledger lacks scores; run preprocess again")
    return held


def _filters(held: dict[str, Any]) -> FilterConfig:
    return FilterConfig(**(held | {"excluded_categories": tuple(held["excluded_categories"])}))


def _some(entries: Iterable[Entry]) -> str:
    return ", ".join([entry.id for entry in entries][:_EXAMPLES])
