"""The videos of the list that no earlier generation holds, each once: a join of the list with the ledgers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam

from pipelines.preprocessing.listing import ListedVideo, VideoList, blocked_ids
from shards.dataset.ledger import read_part
from shards.dataset.video_store import VideoStore
from shards.outcomes import Kind

KNOWN = "known"


class SelectVideos(beam.PTransform):
    """Nothing -> the listed videos to look up; on `KNOWN` how those ended that a ledger names, and are not taken again.

    `ledgers` are the files that say how videos ended in earlier generations, and which were taken out.
    """

    def __init__(self, listed: VideoList, blocklist: str | None, ledgers: tuple[str, ...], retry_failed: bool):
        super().__init__()
        self.listed, self.blocklist, self.ledgers, self.retry_failed = listed, blocklist, ledgers, retry_failed

    def expand(self, begin: beam.pvalue.PBegin) -> tuple[beam.PCollection, beam.PCollection]:
        """The videos to look up, and the kinds of outcome of the known ones."""
        listed = (
            begin
            | "Name the list" >> beam.Create([self.listed], reshuffle=False)
            | "Read the list" >> beam.FlatMap(VideoList.read)
            | "Key the videos by id" >> beam.Map(lambda video: (video.id, video))
        )
        blocked = (
            begin
            | "Name the block list" >> beam.Create([self.blocklist] if self.blocklist else [], reshuffle=False)
            | "Read the block list" >> beam.FlatMap(lambda path: ((name, True) for name in blocked_ids(path)))
        )
        known = begin | "Earlier videos" >> ReadLedgers(self.ledgers)
        selected = (
            {"listed": listed, "blocked": blocked, "known": known}
            | "Keep each id once" >> beam.CoGroupByKey()
            | "Leave out what earlier generations hold"
            >> beam.ParDo(Select(self.retry_failed)).with_outputs(KNOWN, main="selected")
        )
        return selected.selected | "Spread them over the workers" >> beam.Reshuffle(), selected[KNOWN]


class ReadLedgers(beam.PTransform):
    """Nothing -> (id, (time, kind, outcome, version)) of every line of some ledgers."""

    def __init__(self, ledgers: tuple[str, ...]):
        super().__init__()
        self.ledgers = ledgers

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        """The outcomes by id."""
        return (
            begin
            | "Name the ledgers" >> beam.Create(list(self.ledgers), reshuffle=False)
            | "Read how earlier videos ended"
            >> beam.FlatMap(lambda path: ((e.id, (e.at, e.kind, e.outcome, e.version)) for e in read_part(path)))
        )


class ReadCommitted(beam.PTransform):
    """Nothing -> the packed tables of all videos in the per-video store that no earlier generation holds."""

    def __init__(self, out: str, config_digest: str, ledgers: tuple[str, ...]):
        super().__init__()
        self.out, self.config_digest, self.ledgers = out, config_digest, ledgers

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        """The tables."""
        out, config = self.out, self.config_digest
        stored = (
            begin
            | "Name the per-video store" >> beam.Create([self.out], reshuffle=False)
            | "List its objects" >> beam.FlatMap(lambda folder: VideoStore(folder).paths())
            | "Spread the objects over the workers" >> beam.Reshuffle()
            | "Read each table" >> beam.Map(lambda path: VideoStore(out).at(path))
            | "Leave out what was made otherwise" >> beam.Filter(lambda table: table.config == config)
            | "Key the tables by id" >> beam.Map(lambda table: (table.id, table.pack()))
        )
        known = begin | "Earlier videos" >> ReadLedgers(self.ledgers)
        return (
            {"stored": stored, "known": known}
            | "Bring together what is known of a video" >> beam.CoGroupByKey()
            | "Leave out what earlier generations hold"
            >> beam.FlatMap(lambda element: [] if any(element[1]["known"]) else list(element[1]["stored"])[:1])
        )


def is_stale(video: ListedVideo, kind: str, version: str) -> bool:
    """Whether a video that gave no segments is looked at again, as one of its files is another now."""
    return kind != Kind.DONE.value and "" not in (version, video.version) and version != video.version


class Select(beam.DoFn):
    """(id, what names it) -> the video to look up, or on `KNOWN` the kind of its outcome."""

    def __init__(self, retry_failed: bool):
        self.retry_failed = retry_failed

    def process(self, element: tuple[str, Mapping[str, Iterable]]) -> Iterator[ListedVideo | beam.pvalue.TaggedOutput]:
        """Decide about one id."""
        _, named = element
        videos = list(named["listed"])
        if not videos:
            return
        blocked = any(named["blocked"])
        _, kind, outcome, version = max(named["known"], default=(0.0, "", "", ""))
        if not kind:
            yield dataclasses.replace(videos[0], blocked=blocked)
        elif (kind == Kind.FAILED_RETRYABLE.value and self.retry_failed) or is_stale(videos[0], kind, version):
            yield dataclasses.replace(videos[0], blocked=blocked, earlier=f"{kind}/{outcome}")
        else:
            yield beam.pvalue.TaggedOutput(KNOWN, kind)
