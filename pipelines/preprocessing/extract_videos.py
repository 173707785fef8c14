"""From listed videos to committed ones: each ends as one object of the per-video store.

Whatever an element raises becomes its outcome. A bundle that is retried, a second launch and a restarted job meet the
objects that are there and repeat nothing.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import apache_beam as beam

from ingest import folders
from ingest import raw as raw_videos
from ingest.config import DownloadConfig, VideoConfig
from ingest.raw import RawError, RawVideo
from ingest.result import Result, crashed
from pipelines.extraction.circuit_breaker import Breaker
from pipelines.extraction.decoding import Extracted, Extractor
from pipelines.extraction.download_budget import Budget, Pace, Politeness
from pipelines.extraction.untried import Reason
from pipelines.preprocessing.listing import ListedVideo, Source
from pipelines.preprocessing.marker import require_marker
from pipelines.preprocessing.select_videos import is_stale
from pipelines.runner.limits import Limits
from pipelines.runner.metering import JOB, OUTCOME, count, record_seconds, timed
from pipelines.runner.worker_image import require_extras
from shards.dataset.video_store import VideoStore, VideoStoreError, VideoTable
from shards.outcomes import Kind, Outcome
from shards.records.segments import VideoText
from shards.storage import filesystem
from shards.storage.errors import UserError

if TYPE_CHECKING:
    from ingest.download.youtube import Downloader

STAGED_PREFIX = "reservoir-staged-"
"""How the folders of copies from a bucket are named; a copy goes as soon as its video is done."""

TO_DO, NOT_TRIED = "to-do", "not-tried"

_WITHOUT_WORDS = frozenset((Outcome.NO_CAPTIONS, Outcome.CAPTIONS_UNREADABLE, Outcome.NO_WORD_TIMES, Outcome.NO_WORDS))


@dataclass(frozen=True)
class Extraction:
    """How videos are fetched and extracted.

    `config_digest` names how segments are made. `retry_before` makes retryable failures that were committed before this
    time be tried again, in seconds since 1970. `run` names this run of the job. `keep_media` is false for downloads
    that no folder was given for. `marker` is the file of the data folder that is there as long as the folder is.
    """

    out: str
    config: VideoConfig
    config_digest: str
    download: DownloadConfig
    politeness: Politeness
    limits: Limits
    run: str
    marker: str = ""
    keep_media: bool = True
    retry_before: float = 0.0


class ExtractVideos(beam.PTransform):
    """Listed videos -> the packed tables of those that have ended, all committed; and why others were not tried."""

    def __init__(self, extraction: Extraction):
        super().__init__()
        self.extraction = extraction

    def expand(self, videos: beam.PCollection) -> tuple[beam.PCollection, beam.PCollection]:
        """The tables, and the reasons of videos that were not tried."""
        committed, fetched, not_tried = _fetch_missing(videos, self.extraction)
        extracted = (
            fetched
            | "Extract segments in a sandboxed process" >> beam.ParDo(Extract(self.extraction))
            | "Commit each video as one object" >> beam.ParDo(Commit(self.extraction))
        )
        return (committed, extracted) | "Old and new together" >> beam.Flatten(), not_tried


class DownloadVideos(beam.PTransform):
    """Listed videos -> the packed tables of those that cannot be had, committed; and why others were not tried.

    What arrived is in the raw folder and waits for extraction.
    """

    def __init__(self, extraction: Extraction):
        super().__init__()
        self.extraction = extraction

    def expand(self, videos: beam.PCollection) -> tuple[beam.PCollection, beam.PCollection]:
        """The tables, and the reasons of videos that were not tried."""
        committed, fetched, not_tried = _fetch_missing(videos, self.extraction)
        failed = (
            fetched
            | "Leave what arrived" >> beam.Filter(lambda fetched: isinstance(fetched.video, Extracted))
            | "Commit what did not" >> beam.ParDo(Commit(self.extraction))
        )
        return (committed, failed) | "Old and new together" >> beam.Flatten(), not_tried


def _fetch_missing(
    videos: beam.PCollection, extraction: Extraction
) -> tuple[beam.PCollection, beam.PCollection, beam.PCollection]:
    """The packed tables of committed videos, the others as `Fetched`, and why some were not tried."""
    looking = beam.ParDo(LookUp(extraction)).with_outputs(TO_DO, main="committed")
    looked_up = videos | "Look up what is committed" >> looking
    fetching = beam.ParDo(Fetch(extraction)).with_outputs(NOT_TRIED, main="fetched")
    fetched = looked_up[TO_DO] | "Fetch media, captions and metadata" >> fetching
    return looked_up.committed, fetched.fetched, fetched[NOT_TRIED]


class LookUp(beam.DoFn):
    """ListedVideo -> the packed table of a video that is committed; on `TO_DO` one that is not, or is tried again."""

    def __init__(self, extraction: Extraction):
        self.extraction = extraction

    def setup(self) -> None:
        """Open the store."""
        self.store = VideoStore(self.extraction.out)

    def process(self, video: ListedVideo) -> Iterator[bytes | beam.pvalue.TaggedOutput]:
        """Ask for one object."""
        if video.blocked:
            text = VideoText(video.id)
            outcome = Outcome.BLOCKED
            blocked = Extracted(Result(outcome, outcome.sentence, {}, text), 0.0)
            yield _table(blocked, self.extraction, dataclasses.replace(video, version="")).pack()
            return
        damaged = False
        try:
            table = self.store.find(video.id)
        except VideoStoreError:
            table, damaged = None, True
        if table is None or table.config != self.extraction.config_digest:
            yield beam.pvalue.TaggedOutput(TO_DO, (video, damaged or table is not None))
        elif self._is_retried(table) or is_stale(video, table.kind, table.version):
            yield beam.pvalue.TaggedOutput(TO_DO, (video, True))
        else:
            count(JOB, "reused")
            yield table.pack()

    def _is_retried(self, table: VideoTable) -> bool:
        return table.kind == Kind.FAILED_RETRYABLE.value and table.at < self.extraction.retry_before


@dataclass(frozen=True)
class Fetched:
    """A raw video, or the result that it has, as it was listed; `replace` if an older object is written over."""

    video: RawVideo | Extracted
    replace: bool
    listed: ListedVideo


class Fetch(beam.DoFn):
    """(ListedVideo, replace) -> Fetched; on `NOT_TRIED` why a video was not tried, which the next run tries.

    A machine stops downloading for the rest of the run when one of its workers meets a bot check or several rate
    limits, and while the day's downloads of its address are used up.
    """

    def __init__(self, extraction: Extraction):
        self.extraction = extraction

    def setup(self) -> None:
        """Nothing is opened, and no process started, before the first download."""
        self.reader = Extractor(self.extraction.config, self.extraction.limits)
        self.downloaders: dict[str, Downloader] = {}
        self.scratch: str | None = None
        self.breaker = Breaker(self.extraction.run)
        self.budget = Budget(self.extraction.politeness)
        self.pace = Pace()

    def process(self, element: tuple[ListedVideo, bool]) -> Iterator[Fetched | beam.pvalue.TaggedOutput]:
        """Read captions and metadata; download them and the media where they are not here yet."""
        video, replace = element
        with timed("fetch"):
            fetched = self._fetched(video)
        if isinstance(fetched, Reason):
            count(JOB, f"{NOT_TRIED}-{fetched.value}")
            yield beam.pvalue.TaggedOutput(NOT_TRIED, fetched.value)
        else:
            yield Fetched(fetched, replace, video)

    def _fetched(self, video: ListedVideo) -> RawVideo | Extracted | Reason:
        """A raw video, how it ended, or why it was not tried."""
        if video.refused:
            return _ended(video, video.refused, video.detail)
        try:
            if video.source is Source.YOUTUBE:
                return self._stored(video) or self._downloaded(video)
            return self._stored(video) or _ended(video, Outcome.MEDIA_MISSING, Outcome.MEDIA_MISSING.sentence)
        except RawError as error:
            return _ended(video, error.outcome, str(error))
        except UserError:
            # Not this video's fault: the job cannot write, or lacks something that every video needs.
            raise
        except OSError as error:
            # It could be read when the videos were listed, and may be read again.
            return _ended(video, Outcome.INPUT_UNREADABLE, str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one video ends that video alone
            return Extracted(crashed(video.id, error), 0.0)

    def _stored(self, video: ListedVideo) -> RawVideo | None:
        """A raw video that is on a disk, or a copy of one in a bucket, which goes when it has been extracted."""
        if video.source is Source.FOLDER:
            if not filesystem.is_remote(video.place):
                return raw_videos.from_folder(video.place, video.beside)
            return self._copied(
                lambda folder: raw_videos.from_folder(raw_videos.stage(video.place, video.beside, folder), video.beside)
            )
        kept = raw_folder(video, self.extraction.out)
        if not filesystem.is_remote(kept):
            paths = raw_videos.layout_paths(kept, video.id)
            # Without its metadata and captions a download was interrupted.
            complete = paths.media.is_file() and paths.info.is_file()
            return raw_videos.from_layout(kept, video.id) if complete or video.source is Source.LAYOUT else None
        wanted = video.source is Source.LAYOUT
        return self._copied(
            lambda folder: (
                raw_videos.from_layout(folder, video.id)
                if raw_videos.stage_layout(kept, video.id, folder) or wanted
                else None
            )
        )

    def _copied(self, read: Callable[[str], RawVideo | None]) -> RawVideo | None:
        """What `read` gives of copies in a new folder, which is removed at once if it gives no video."""
        folder = tempfile.mkdtemp(dir=self._scratch())
        raw = None
        try:
            raw = read(folder)
        finally:
            if raw is None:
                shutil.rmtree(folder, ignore_errors=True)
        return raw

    def _downloaded(self, video: ListedVideo) -> RawVideo | Extracted | Reason:
        """What a download gives, or why there was none."""
        if reason := self.breaker.reason():
            return self._stopped(reason)
        with self.budget.turn() as allowed:
            # While this worker waited for its turn, another may have met a bot check.
            if reason := self.breaker.reason():
                return self._stopped(reason)
            if not allowed:
                return Reason.DAILY_LIMIT
            kept = raw_folder(video, self.extraction.out)
            folder = self._scratch() if filesystem.is_remote(kept) else kept
            with self.pace.measured():
                fetched = self._downloader(folder)(video.id)
        self.breaker.note(fetched.outcome if isinstance(fetched, Result) else None)
        if isinstance(fetched, Result):
            return Extracted(fetched, 0.0)
        if filesystem.is_remote(video.place):
            raw_videos.store_layout(folder, video.id, video.place)
        return fetched

    def _stopped(self, reason: Reason) -> Reason:
        """The reason, on a machine that must not download any more."""
        if filesystem.is_remote(self.extraction.out):
            # Other machines may go on. One that returned its videos at once would drain the list before they can.
            self.pace.wait()
        return reason

    def _scratch(self) -> str:
        """The folder of this worker's copies, made when it is first needed."""
        self.scratch = self.scratch or tempfile.mkdtemp(prefix=STAGED_PREFIX)
        return self.scratch

    def teardown(self) -> None:
        """Leave nothing on this machine."""
        self.reader.close()
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _downloader(self, folder: str) -> Downloader:
        # What downloads costs a second to import, which jobs on files should not pay.
        from ingest.download.youtube import Downloader

        if folder not in self.downloaders:
            language, reader = self.extraction.config.language, self.reader
            self.downloaders[folder] = Downloader(
                folder, self.extraction.download, language, reader.screen, reader.check
            )
        return self.downloaders[folder]


class Extract(beam.DoFn):
    """Fetched -> Fetched with the result of its video, from a child process with limits."""

    def __init__(self, extraction: Extraction):
        self.extraction = extraction

    def setup(self) -> None:
        """Prepare the child; it starts with the first video."""
        require_extras(self.extraction.config)
        self.extractor = Extractor(self.extraction.config, self.extraction.limits)

    def process(self, fetched: Fetched) -> Iterator[Fetched]:
        """The result of one video; downloaded media that nobody wants to keep go at once."""
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
        """Commit one video in one step; where another worker was faster, go on with what that one committed."""
        require_marker(self.extraction.marker)
        table = _table(fetched.video, self.extraction, fetched.listed)
        with timed("commit"):
            table = self.store.commit(table, fetched.video.result.segments, fetched.replace)
        count(OUTCOME, table.outcome)
        count(JOB, "segments", len(table.spans))
        yield table.pack()


def raw_folder(video: ListedVideo, out: str) -> str:
    """The folder in the raw layout that holds the downloads of a video."""
    return video.place or filesystem.join(out, "raw")


def _is_copy(media: str) -> bool:
    """Whether a media file is our own copy in the temporary folder, which nobody else needs."""
    folder = Path(tempfile.gettempdir())
    path = Path(media)
    return path.is_relative_to(folder) and path.relative_to(folder).parts[0].startswith(STAGED_PREFIX)


def _ended(video: ListedVideo, outcome: Outcome, detail: str) -> Extracted:
    return Extracted(Result(outcome, detail, {}, VideoText(video.id)), 0.0)


def _unless_changed(extracted: Extracted, listed: ListedVideo) -> Extracted:
    """A result, or that the files on this machine are not those that were listed, of which it says nothing."""
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
            else _ended(listed, Outcome.INPUT_UNREADABLE, f"{listed.place!r}: {extracted.result.detail}")
        )
    return _ended(listed, Outcome.INPUT_CHANGED, f"a file of {listed.id!r} changed after the videos were listed")


def _can_be_read(extracted: Extracted, listed: ListedVideo) -> bool:
    """Whether media that could not be decoded can be read at all: what a disk refuses now, it may give later."""
    if extracted.result.outcome is not Outcome.MEDIA_UNREADABLE or listed.source is not Source.FOLDER:
        return True
    try:
        with Path(listed.place).open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def explained(extracted: Extracted, listed: ListedVideo) -> Extracted:
    """A result whose detail names the files beside the video that hold captions which are not read."""
    result = extracted.result
    if not listed.unread or result.outcome not in _WITHOUT_WORDS:
        return extracted
    files = ", ".join(map(repr, listed.unread[:3]))
    detail = f"{result.detail}; {files} is not vtt, srt or json3 and was not read"
    return dataclasses.replace(extracted, result=dataclasses.replace(result, detail=detail))


def _table(extracted: Extracted, extraction: Extraction, listed: ListedVideo) -> VideoTable:
    """The table of a result, without its spans."""
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
