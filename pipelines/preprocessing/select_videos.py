"""Select the listed videos that are not in an earlier generation, each once, by joining the list with the ledgers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
from apache_beam.pvalue import PBegin, TaggedOutput

from pipelines.preprocessing.listing import ListedVideo, VideoList, blocked_ids
from pipelines.runner.beam_types import PCollection
from shards.dataset.ledger import read_part
from shards.dataset.video_store import VideoStore
from shards.outcomes import Kind

KNOWN = "known"


class SelectVideos(beam.PTransform):
    """Nothing -> the listed videos to process; on `KNOWN` the kinds of outcome of the others, which are in a ledger.

    `ledgers` are the paths of the ledgers of earlier generations and of removed videos.
    """

    def __init__(self, listed: VideoList, blocklist: str | None, ledgers: tuple[str, ...], retry_failed: bool):
        super().__init__()
        self.listed, self.blocklist, self.ledgers, self.retry_failed = listed, blocklist, ledgers, retry_failed

    def expand(self, begin: PBegin) -> tuple[PCollection, PCollection]:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Return the selected videos, and the kinds of outcome of the known ones."""
        listed = (
            begin
            | "Create the list" >> beam.Create([self.listed], reshuffle=False)
            | "Read the list" >> beam.FlatMap(VideoList.read)
            | "Key the videos by id" >> beam.Map(lambda video: (video.id, video))
        )
        blocked = (
            begin
            | "Create the block list" >> beam.Create([self.blocklist] if self.blocklist else [], reshuffle=False)
            | "Read the block list" >> beam.FlatMap(lambda path: ((name, True) for name in blocked_ids(path)))
        )
        known = begin | "Earlier videos" >> ReadLedgers(self.ledgers)
        selected: PCollection = (
            {"listed": listed, "blocked": blocked, "known": known}
            | "Group by id" >> beam.CoGroupByKey()
            | "Select new videos" >> beam.ParDo(Select(self.retry_failed)).with_outputs(KNOWN, main="selected")
        )
        return selected.selected | "Distribute the videos" >> beam.Reshuffle(), selected[KNOWN]


class ReadLedgers(beam.PTransform):
    """Nothing -> (id, (time, kind, outcome, version)) of every line of some ledgers."""

    def __init__(self, ledgers: tuple[str, ...]):
        super().__init__()
        self.ledgers = ledgers

    def expand(self, begin: PBegin) -> PCollection:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Return the outcomes by id."""
        return (
            begin
            | "List the ledgers" >> beam.Create(list(self.ledgers), reshuffle=False)
            | "Read the outcomes"
            >> beam.FlatMap(lambda path: ((e.id, (e.at, e.kind, e.outcome, e.version)) for e in read_part(path)))
        )


class ReadCommitted(beam.PTransform):
    """Nothing -> the packed tables of all videos in the per-video store that are not in an earlier generation."""

    def __init__(self, out: str, config_digest: str, ledgers: tuple[str, ...]):
        super().__init__()
        self.out, self.config_digest, self.ledgers = out, config_digest, ledgers

    def expand(self, begin: PBegin) -> PCollection:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Return the tables."""
        out, config = self.out, self.config_digest
        stored = (
            begin
            | "Create the per-video store" >> beam.Create([self.out], reshuffle=False)
            | "List its objects" >> beam.FlatMap(lambda folder: VideoStore(folder).paths())
            | "Distribute the objects" >> beam.Reshuffle()
            | "Read each table" >> beam.Map(lambda path: VideoStore(out).at(path))
            | "Keep tables of this config" >> beam.Filter(lambda table: table.config == config)
            | "Key the tables by id" >> beam.Map(lambda table: (table.id, table.pack()))
        )
        known = begin | "Earlier videos" >> ReadLedgers(self.ledgers)
        return (
            {"stored": stored, "known": known}
            | "Group by id" >> beam.CoGroupByKey()
            | "Select new videos"
            >> beam.FlatMap(lambda element: [] if any(element[1]["known"]) else list(element[1]["stored"])[:1])
        )


def is_stale(video: ListedVideo, kind: str, version: str) -> bool:
    """Return whether to retry a video without segments because one of its files has changed."""
    return kind != Kind.DONE.value and "" not in (version, video.version) and version != video.version


class Select(beam.DoFn):
    """(id, its listed, blocked and known entries) -> the video to process, or on `KNOWN` the kind of its outcome."""

    def __init__(self, retry_failed: bool):
        self.retry_failed = retry_failed

    def process(self, element: tuple[str, Mapping[str, Iterable]]) -> Iterator[ListedVideo | TaggedOutput]:
        """Select or skip one id."""
        _, entries = element
        videos = list(entries["listed"])
        if not videos:
            return
        blocked = any(entries["blocked"])
        _, kind, outcome, version = max(entries["known"], default=(0.0, "", "", ""))
        if not kind:
            yield dataclasses.replace(videos[0], blocked=blocked)
        elif (kind == Kind.FAILED_RETRYABLE.value and self.retry_failed) or is_stale(videos[0], kind, version):
            yield dataclasses.replace(videos[0], blocked=blocked, earlier=f"{kind}/{outcome}")
        else:
            yield TaggedOutput(KNOWN, kind)
