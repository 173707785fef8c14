"""Apply other thresholds to the videos of a finished data folder, using the scores in its ledger instead of media."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.pvalue import PBegin

from ingest.config import FilterConfig
from ingest.filters import broken_rule
from pipelines.runner.beam_types import PCollection
from shards.dataset.ledger import Entry, read_part
from shards.dataset.video_store import VideoStore, VideoTable
from shards.outcomes import Kind, Outcome
from shards.records.segments import VideoText

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
"""Outcomes that depend on a threshold."""

_RULES = frozenset(rule.value for rule in RULES)


@dataclass(frozen=True)
class Replay:
    """Other thresholds for the videos of the data folder `data`, without the removed ones, `withdrawn`."""

    data: str
    ledgers: tuple[str, ...]
    language: str
    filters: FilterConfig
    withdrawn: frozenset[str]

    def entries(self) -> Iterator[Entry]:
        """Yield the entries of all ledgers."""
        for path in self.ledgers:
            yield from read_part(path)

    def decide(self, entry: Entry) -> tuple[str, Outcome | None]:
        """Return the decision for a video, `kept`, `dropped` (with the rule), `regained` (to be extracted), `as before`
        or `withdrawn`."""
        if entry.id in self.withdrawn:
            return "withdrawn", None
        broken = broken_rule(entry.scores, self.language, self.filters)
        if entry.kind == Kind.DONE.value:
            return ("dropped", broken) if broken else ("kept", None)
        return ("regained", None) if entry.outcome in _RULES and not broken else ("as before", None)


class ReplayRules(beam.PTransform):
    """Nothing -> the packed tables of one split with other thresholds, copied into the per-video store of `out`."""

    def __init__(self, replay: Replay, out: str, config_digest: str, split: str):
        super().__init__()
        self.replay, self.out, self.config_digest, self.split = replay, out, config_digest, split

    def expand(self, begin: PBegin) -> PCollection:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Return the tables."""
        split = self.split
        return (
            begin
            | "List the ledgers" >> beam.Create(list(self.replay.ledgers), reshuffle=False)
            | "Read the entries" >> beam.FlatMap(read_part)
            | "Keep the split" >> beam.Filter(lambda entry: entry.split == split)
            | "Distribute the entries" >> beam.Reshuffle()
            | "Copy videos that pass the rules" >> beam.ParDo(CopyVideo(self.replay, self.out, self.config_digest))
        )


class CopyVideo(beam.DoFn):
    """Entry -> the packed table of the video in the new store; videos that must be extracted are left out."""

    def __init__(self, replay: Replay, out: str, config_digest: str):
        self.replay, self.out, self.config_digest = replay, out, config_digest

    def process(self, entry: Entry) -> Iterator[bytes]:
        """Copy one video if it passes the rules. Raises `VideoStoreError` if its segments were not stored."""
        decision, rule = self.replay.decide(entry)
        if decision == "kept":
            source = VideoStore(self.replay.data)
            table = source.get(entry.id)
            segments = source.read(table, 0, len(table.spans))
            table = dataclasses.replace(table, config=self.config_digest)
            yield VideoStore(self.out).commit(table, segments).pack()
        elif decision in ("dropped", "as before"):
            outcome = rule or Outcome(entry.outcome)
            detail = rule.sentence if rule else entry.detail
            yield VideoTable(
                VideoText(entry.id),
                self.config_digest,
                outcome.value,
                outcome.kind.value,
                detail,
                entry.scores,
                cpu_seconds=entry.cpu_seconds,
                at=entry.at,
                earlier=entry.earlier,
            ).pack()
