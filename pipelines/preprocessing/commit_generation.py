"""Commit a generation at the end of the graph: write the ledger, the statistics, and finally the manifest."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, AsSingleton

from pipelines.preprocessing.assemble_shards import Assembled, Assembly, SumFn
from pipelines.preprocessing.marker import require_marker
from pipelines.runner.beam_types import PCollection
from pipelines.runner.metering import JOB, count, timed
from shards.dataset import generations, ledger, manifest, removal
from shards.dataset import location as dataset
from shards.dataset.generations import waiting_runs
from shards.dataset.ledger import Entry
from shards.dataset.manifest import Generation, Shard, generation_stats_path
from shards.dataset.sums import Sums
from shards.dataset.text_store import TextStore
from shards.dataset.video_store import VideoStore, VideoTable
from shards.inspection import card
from shards.outcomes import Kind
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.storage.randomness import digest

REPORT = "report.json"
"""The name of the report of the last run, in the data folder."""

_UNDROPPED = ".undropped"
_LEDGER_LINES = 50_000


@dataclass(frozen=True)
class Commitment:
    """What is committed with the shards: digests of the config and the vocabulary, and what is dropped afterwards.

    `withdrawn` is the digest of the list of removed videos at the start of the job. `undropped` are the ledgers of
    generations whose objects in the per-video store an interrupted job did not drop. `marker` is a file that exists as
    long as the data folder does.
    """

    assembly: Assembly
    config: str
    tokenizer: str
    withdrawn: str
    keep_segments: bool = False
    text_sources: tuple[str, ...] = ()
    undropped: tuple[str, ...] = ()
    marker: str = ""


class CommitGeneration(beam.PTransform):
    """Packed tables of all videos of a run, and the shards assembled from them -> the committed generation.

    `known` are the kinds of outcome of listed videos in earlier generations, `not_tried` the reasons for which videos
    were not tried. Nothing is committed if no video is new.
    """

    def __init__(self, commitment: Commitment, assembled: Assembled, known: PCollection, not_tried: PCollection):
        super().__init__()
        self.commitment, self.assembled, self.known, self.not_tried = commitment, assembled, known, not_tried

    def expand(self, tables: PCollection) -> PCollection:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Commit the generation, if there is one, and drop its videos from the per-video store."""
        assembly, assembled = self.commitment.assembly, self.assembled
        entries = tables | "Create ledger entries" >> beam.Map(_entry, assembly.split)
        empty = AsSingleton(entries | "Compute the parts of the ledger" >> beam.CombineGlobally(EmptyFn(assembly)))
        written = (
            entries
            | "Assign entries to parts" >> beam.Map(lambda e, generation: (_part_of(e.id, generation.ledger), e), empty)
            | "Group entries by part" >> beam.GroupByKey()
            | "Write the ledger" >> beam.ParDo(WriteLedger(assembly.out), empty)
        )
        items = entries | "Sum up the outcomes" >> beam.CombineGlobally(ItemsFn())
        committed = (
            tables.pipeline
            | "Start the commit" >> beam.Create([None], reshuffle=False)
            | "Write the manifest last"
            >> beam.ParDo(
                WriteManifest(self.commitment),
                empty,
                AsIter(assembled.shards),
                AsIter(assembled.remainder),
                AsSingleton(assembled.sums),
                AsSingleton(items),
                AsIter(written),
                AsDict(self.known | "Count known videos" >> beam.combiners.Count.PerElement()),
                AsDict(self.not_tried | "Count untried videos" >> beam.combiners.Count.PerElement()),
                AsSingleton(assembled.text_used),
                AsSingleton(assembled.text_packed),
            )
        )
        if not self.commitment.keep_segments:
            self._drop(entries, committed)
        return committed

    def _drop(self, entries: PCollection, committed: PCollection) -> None:
        """Remove the objects of packed videos from the per-video store, except videos with pending segments."""
        pending = {video for video, _, _ in self.commitment.assembly.pending}
        earlier = (
            entries.pipeline
            | "List ledgers of undropped videos" >> beam.Create(list(self.commitment.undropped), reshuffle=False)
            | "Read these ledgers" >> beam.FlatMap(ledger.read_part)
        )
        dropped = (
            (
                entries | "Ids of new videos" >> beam.Map(lambda entry: entry.id),
                earlier | "Ids of undropped videos" >> beam.Map(lambda entry: entry.id),
                entries.pipeline | "Ids of pending videos" >> beam.Create(sorted(pending), reshuffle=False),
            )
            | "All ids to drop" >> beam.Flatten()
            | "Drop packed videos" >> beam.ParDo(DropVideo(self.commitment), AsIter(committed))
            | "Count dropped videos" >> beam.combiners.Count.Globally()
        )
        _ = (
            entries.pipeline
            | "Start the cleanup" >> beam.Create([None], reshuffle=False)
            | "Record that all are dropped" >> beam.ParDo(NoteDropped(self.commitment), AsSingleton(dropped))
        )


def entry_of(table: VideoTable, split: str) -> Entry:
    """Return the ledger entry of a video."""
    return Entry(
        id=table.id,
        outcome=table.outcome,
        kind=table.kind,
        detail=table.detail,
        scores=table.scores,
        split=split,
        segments=len(table.spans),
        video_seconds=table.scores.get("duration") or 0.0,
        cpu_seconds=table.cpu_seconds,
        at=table.at,
        earlier=table.earlier,
        version=table.version,
    )


def _entry(table: bytes, split: str) -> Entry:
    return entry_of(VideoTable.unpack(table), split)


def _part_of(video_id: str, parts: int) -> int:
    return int.from_bytes(digest(0, "ledger", video_id)[:8], "little") % parts


class EmptyFn(beam.CombineFn):
    """Entries -> their generation without shards: the number of parts of its ledger, and its tag."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly

    def create_accumulator(self) -> tuple[int, int]:
        """Return the sum of no entries."""
        return 0, 0

    def add_input(self, total: tuple[int, int], entry: Entry) -> tuple[int, int]:
        """Add one entry."""
        one = digest(0, "ledger", entry.id, entry.kind, entry.outcome, entry.earlier)
        return self.merge_accumulators([total, (1, int.from_bytes(one[:8], "little"))])

    def merge_accumulators(self, totals: Iterable[tuple[int, int]]) -> tuple[int, int]:
        """Add totals."""
        counts, contents = zip(*totals, strict=True)
        return sum(counts), sum(contents) % (1 << 64)

    def extract_output(self, total: tuple[int, int]) -> Generation:
        """Return the generation."""
        entries, content = total
        tag = f"{content:016x}"[:6]
        assembly, parts = self.assembly, math.ceil(entries / _LEDGER_LINES)
        return Generation(assembly.number, assembly.split, 0, 0, [], took=list(assembly.took), ledger=parts, tag=tag)


class WriteLedger(beam.DoFn):
    """(number, entries) -> number: write one part of the ledger, sorted by id."""

    def __init__(self, out: str):
        self.out = out

    def process(self, element: tuple[int, Iterable[Entry]], generation: Generation) -> Iterator[int]:
        """Write one part."""
        number, entries = element
        lines = {entry.id: ledger.line(entry) for entry in entries}
        content = b"".join(lines[video] + b"\n" for video in sorted(lines))
        filesystem.put_bytes(ledger.part_path(self.out, generation, number), content)
        yield number


class ItemsFn(SumFn):
    """Entries of a ledger -> the sum of their statistics."""

    def add_input(self, total: Sums, one: Any) -> Sums:
        """Add one `Entry`."""
        return total.add(Sums.of_items([one]))


class WriteManifest(beam.DoFn):
    """None -> the committed generation, or nothing if no video is new; writes a report of the run in any case."""

    def __init__(self, commitment: Commitment):
        self.commitment = commitment

    def process(
        self,
        _: None,
        empty: Generation,
        shards: Iterable[Shard],
        remainder: Iterable[Any],
        shard_sums: Sums,
        item_sums: Sums,
        parts: Iterable[int],
        known: dict[str, int],
        not_tried: dict[str, int],
        text_used: dict[str, int],
        text_packed: dict[str, Counter[str]],
    ) -> Iterator[Generation]:
        """Commit; a repeated call changes nothing. Raises `UserError` if another job has changed the folder."""
        require_marker(self.commitment.marker)
        assembly, out = self.commitment.assembly, self.commitment.assembly.out
        # Reading this side input waits for the parts of the ledger.
        list(parts)
        with timed("commit-generation"):
            if empty.ledger:
                if removal.withdrawn_digest(out) != self.commitment.withdrawn:
                    raise UserError("videos were removed while the job ran; run the same command again")
                written = sorted(shards, key=lambda shard: shard.name)
                generation = dataclasses.replace(
                    empty,
                    videos=sum(n for (kind, _), n in item_sums.outcomes.items() if kind == Kind.DONE.value),
                    segments=sum(shard.examples for shard in written) * assembly.packing.segments_per_example,
                    shards=written,
                    text=dict(text_used),
                    remainder=sorted([run.video_id, run.first, run.stop] for run in remainder),
                )
                self._commit(generation, Sums().add(item_sums).add(shard_sums))
                yield generation
            # A job that was interrupted after its commit leaves this to the next.
            if committed := manifest.find(out):
                generations.sweep(out, committed, committed.next_number() - 1)
                card.write(dataset.open_data(out))
            write_report(out, item_sums, known, not_tried, text_packed)

    def _commit(self, generation: Generation, sums: Sums) -> None:
        assembly, out = self.commitment.assembly, self.commitment.assembly.out
        filesystem.put_bytes(generation_stats_path(out, generation), sums.to_json().encode())
        if not self.commitment.keep_segments:
            filesystem.put_bytes(_undropped_path(out, generation.number), b"")
        size = assembly.packing.segments_per_example
        generations.commit(out, generation, size, self.commitment.config, self.commitment.tokenizer)
        count(JOB, "generations")


def write_report(
    out: str, items: Sums, known: dict[str, int], not_tried: dict[str, int], text: dict[str, Counter[str]]
) -> None:
    """Write the report of a run, which the command prints if it waits for the job."""
    report = {
        "known": known,
        "not_tried": not_tried,
        "outcomes": [[kind, outcome, n] for (kind, outcome), n in sorted(items.outcomes.items()) if n > 0],
        "samples": items.samples,
        "text": text,
    }
    filesystem.put_bytes(filesystem.join(out, REPORT), (json.dumps(report, ensure_ascii=False) + "\n").encode())


class ReportRun(beam.PTransform):
    """Packed tables of the videos of a run without shards -> its report."""

    def __init__(self, out: str, known: PCollection, not_tried: PCollection):
        super().__init__()
        self.out, self.known, self.not_tried = out, known, not_tried

    def expand(self, tables: PCollection) -> PCollection:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Write the report."""
        out = self.out
        items = (
            tables
            | "Create ledger entries" >> beam.Map(_entry, "")
            | "Sum up the outcomes" >> beam.CombineGlobally(ItemsFn())
        )
        return items | "Write the report" >> beam.Map(
            lambda items, known, not_tried: write_report(out, items, known, not_tried, {}),
            AsDict(self.known | "Count known videos" >> beam.combiners.Count.PerElement()),
            AsDict(self.not_tried | "Count untried videos" >> beam.combiners.Count.PerElement()),
        )


class DropVideo(beam.DoFn):
    """id -> id: remove the video's object, unless some of its segments are pending."""

    def __init__(self, commitment: Commitment):
        self.commitment = commitment

    def start_bundle(self) -> None:
        """Forget the pending videos: they are read from the committed manifest."""
        self.pending: frozenset[str] | None = None

    def process(self, video_id: str, committed: Iterable[Generation]) -> Iterator[str]:
        """Drop one object, after the commit: the side input delays this stage."""
        out = self.commitment.assembly.out
        if self.pending is None:
            current = manifest.find(out)
            runs = (run for split in (current.splits() if current else []) for run in waiting_runs(current, split))
            self.pending = frozenset(run.video_id for run in runs)
        if video_id not in self.pending:
            VideoStore(out).remove(video_id)
            yield video_id


class NoteDropped(beam.DoFn):
    """None -> nothing: remove the markers of undropped generations, and the packed text."""

    def __init__(self, commitment: Commitment):
        self.commitment = commitment

    def process(self, _: None, dropped: int) -> None:
        """Remove the markers and the text, after all videos: the side input delays this stage."""
        out = self.commitment.assembly.out
        TextStore(out).drop(self.commitment.text_sources)
        for number in undropped(out):
            filesystem.remove(_undropped_path(out, number))


def undropped(out: str) -> list[int]:
    """Return the numbers of the generations whose objects in the per-video store an interrupted job did not drop."""
    paths = filesystem.list_files(out, _UNDROPPED)
    return [int(path.rpartition("/")[2].removesuffix(_UNDROPPED)[1:]) for path in paths]


def _undropped_path(out: str, number: int) -> str:
    return filesystem.join(out, f"g{number:04d}{_UNDROPPED}")
