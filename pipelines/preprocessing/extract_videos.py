"""Extract the segments of listed videos and commit each video as one object of the per-video store.

An exception for one video becomes its outcome. A retried bundle, a second launch and a restarted job reuse the objects
that exist.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from ingest import folders
from ingest import raw as raw_videos
from pipelines.extraction.decoding import Extracted, Extractor
from pipelines.preprocessing.fetch_videos import NOT_TRIED, STAGED_PREFIX, Extraction, Fetch, Fetched, rejected
from pipelines.preprocessing.listing import ListedVideo, Source
from pipelines.preprocessing.marker import require_marker
from pipelines.preprocessing.select_videos import is_stale
from pipelines.runner.beam_types import PCollection
from pipelines.runner.metering import JOB, OUTCOME, count, record_seconds, timed
from pipelines.runner.worker_image import require_extras
from shards.dataset.video_store import VideoStore, VideoStoreError, VideoTable
from shards.outcomes import Kind, Outcome
from shards.storage import filesystem

TO_DO = "to-do"

_WITHOUT_WORDS = frozenset((Outcome.NO_CAPTIONS, Outcome.CAPTIONS_UNREADABLE, Outcome.NO_WORD_TIMES, Outcome.NO_WORDS))


class ExtractVideos(beam.PTransform):
    """Listed videos -> the packed tables of the committed videos, and the reasons for which others were not tried."""

    def __init__(self, extraction: Extraction):
        super().__init__()
        self.extraction = extraction

    def expand(self, videos: PCollection) -> tuple[PCollection, PCollection]:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Return the tables and the reasons."""
        committed, fetched, not_tried = _fetch_missing(videos, self.extraction)
        extracted = (
            fetched
            | "Extract segments in a sandboxed process" >> beam.ParDo(Extract(self.extraction))
            | "Commit each video as one object" >> beam.ParDo(Commit(self.extraction))
        )
        return (committed, extracted) | "All tables" >> beam.Flatten(), not_tried


class DownloadVideos(beam.PTransform):
    """Listed videos -> the packed tables of failed downloads, and the reasons for which others were not tried.

    Downloaded videos are stored in the raw folder, to be extracted later.
    """

    def __init__(self, extraction: Extraction):
        super().__init__()
        self.extraction = extraction

    def expand(self, videos: PCollection) -> tuple[PCollection, PCollection]:  # pyright: ignore[reportIncompatibleMethodOverride] - positional
        """Return the tables and the reasons."""
        committed, fetched, not_tried = _fetch_missing(videos, self.extraction)
        failed = (
            fetched
            | "Keep failed downloads" >> beam.Filter(lambda fetched: isinstance(fetched.video, Extracted))
            | "Commit failed downloads" >> beam.ParDo(Commit(self.extraction))
        )
        return (committed, failed) | "All tables" >> beam.Flatten(), not_tried


def _fetch_missing(videos: PCollection, extraction: Extraction) -> tuple[PCollection, PCollection, PCollection]:
    """Return the packed tables of committed videos, the others as `Fetched`, and why some were not tried."""
    look_up = beam.ParDo(LookUp(extraction)).with_outputs(TO_DO, main="committed")
    existing = videos | "Look up committed videos" >> look_up
    fetch = beam.ParDo(Fetch(extraction)).with_outputs(NOT_TRIED, main="fetched")
    fetched = existing[TO_DO] | "Fetch media, captions and metadata" >> fetch
    return existing.committed, fetched.fetched, fetched[NOT_TRIED]


class LookUp(beam.DoFn):
    """ListedVideo -> the packed table of a committed video; on `TO_DO` a video that is not committed, or is retried."""

    def __init__(self, extraction: Extraction):
        self.extraction = extraction

    def setup(self) -> None:
        """Open the store."""
        self.store = VideoStore(self.extraction.out)

    def process(self, video: ListedVideo) -> Iterator[bytes | TaggedOutput]:
        """Look up one object of the per-video store."""
        if video.blocked:
            blocked = rejected(video, Outcome.BLOCKED, Outcome.BLOCKED.sentence)
            yield _table(blocked, self.extraction, dataclasses.replace(video, version="")).pack()
            return
        damaged = False
        try:
            table = self.store.find(video.id)
        except VideoStoreError:
            table, damaged = None, True
        if table is None or table.config != self.extraction.config_digest:
            yield TaggedOutput(TO_DO, (video, damaged or table is not None))
        elif self._is_retried(table) or is_stale(video, table.kind, table.version):
            yield TaggedOutput(TO_DO, (video, True))
        else:
            count(JOB, "reused")
            yield table.pack()

    def _is_retried(self, table: VideoTable) -> bool:
        return table.kind == Kind.FAILED_RETRYABLE.value and table.at < self.extraction.retry_before


class Extract(beam.DoFn):
    """Fetched -> Fetched with the result of its video, from a child process with limits."""

    def __init__(self, extraction: Extraction):
        self.extraction = extraction

    def setup(self) -> None:
        """Prepare the child; it starts with the first video."""
        require_extras(self.extraction.config)
        self.extractor = Extractor(self.extraction.config, self.extraction.limits)

    def process(self, fetched: Fetched) -> Iterator[Fetched]:
        """Extract one video, and remove its downloaded media unless they are kept."""
        raw = fetched.video
        if isinstance(raw, Extracted):
            yield dataclasses.replace(fetched, video=explained(raw, fetched.listed))
            return
        with timed("extract"):
            extracted = self.extractor(raw)
        record_seconds("extract-cpu", extracted.cpu_seconds)
        yield dataclasses.replace(fetched, video=explained(_unless_changed(extracted, fetched.listed), fetched.listed))
        if raw.media:
            if _is_copy(raw.media):
                shutil.rmtree(Path(raw.media).parent, ignore_errors=True)
            elif not self.extraction.keep_media:
                Path(raw.media).unlink(missing_ok=True)

    def teardown(self) -> None:
        """End the child."""
        self.extractor.close()


class Commit(beam.DoFn):
    """Fetched with a result -> the packed table of the committed object."""

    def __init__(self, extraction: Extraction):
        self.extraction = extraction

    def setup(self) -> None:
        """Open the store."""
        self.store = VideoStore(self.extraction.out)

    def process(self, fetched: Fetched) -> Iterator[bytes]:
        """Commit one video atomically; if another worker has committed it already, output that table."""
        require_marker(self.extraction.marker)
        extracted = fetched.video
        if not isinstance(extracted, Extracted):
            raise TypeError(f"the video {fetched.listed.id!r} has no result")
        table = _table(extracted, self.extraction, fetched.listed)
        with timed("commit"):
            table = self.store.commit(table, extracted.result.segments, fetched.replace)
        count(OUTCOME, table.outcome)
        count(JOB, "segments", len(table.spans))
        yield table.pack()


def _is_copy(media: str) -> bool:
    """Return whether a media file is a worker's copy in the temporary folder."""
    folder = Path(tempfile.gettempdir())
    path = Path(media)
    return path.is_relative_to(folder) and path.relative_to(folder).parts[0].startswith(STAGED_PREFIX)


def _unless_changed(extracted: Extracted, listed: ListedVideo) -> Extracted:
    """Return the result, replaced by a retryable outcome if the files have changed since the videos were listed."""
    if not listed.version or filesystem.is_remote(listed.place):
        return extracted
    if listed.source is Source.FOLDER:
        version = folders.current_version(listed.place, listed.beside)
    else:
        version = raw_videos.layout_version(listed.place, listed.id)
    if version == listed.version:
        return (
            extracted
            if _can_be_read(extracted, listed)
            else rejected(listed, Outcome.INPUT_UNREADABLE, f"{listed.place!r}: {extracted.result.detail}")
        )
    return rejected(listed, Outcome.INPUT_CHANGED, f"a file of {listed.id!r} changed after the videos were listed")


def _can_be_read(extracted: Extracted, listed: ListedVideo) -> bool:
    """Return whether the media can be read, though perhaps not decoded; if not, a later attempt may succeed."""
    if extracted.result.outcome is not Outcome.MEDIA_UNREADABLE or listed.source is not Source.FOLDER:
        return True
    try:
        with Path(listed.place).open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def explained(extracted: Extracted, listed: ListedVideo) -> Extracted:
    """Return the result with the names of caption files in unsupported formats added to its detail."""
    result = extracted.result
    if not listed.unread or result.outcome not in _WITHOUT_WORDS:
        return extracted
    files = ", ".join(map(repr, listed.unread[:3]))
    detail = f"{result.detail}; {files} is not vtt, srt or json3 and was not read"
    return dataclasses.replace(extracted, result=dataclasses.replace(result, detail=detail))


def _table(extracted: Extracted, extraction: Extraction, listed: ListedVideo) -> VideoTable:
    """Return the table of a result, without its spans."""
    result = extracted.result
    return VideoTable(
        result.text,
        extraction.config_digest,
        result.outcome.value,
        result.outcome.kind.value,
        result.detail,
        result.scores,
        cpu_seconds=round(extracted.cpu_seconds, 3),
        at=round(time.time(), 3),
        earlier=listed.earlier,
        version=listed.version,
    )
