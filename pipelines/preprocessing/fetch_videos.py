"""Fetch listed videos: read them from a folder, copy them from a bucket, or download them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from ingest import raw as raw_videos
from ingest.config import DownloadConfig, VideoConfig
from ingest.raw import RawError, RawVideo
from ingest.result import Result, crashed
from pipelines.extraction.circuit_breaker import Breaker
from pipelines.extraction.decoding import Extracted, Extractor
from pipelines.extraction.download_budget import Budget, Pace, Politeness
from pipelines.extraction.untried import Reason
from pipelines.preprocessing.listing import ListedVideo, Source
from pipelines.runner.limits import Limits
from pipelines.runner.metering import JOB, count, timed
from shards.outcomes import Outcome
from shards.records.segments import VideoText
from shards.storage import filesystem
from shards.storage.errors import UserError

if TYPE_CHECKING:
    from ingest.download.youtube import Downloader

STAGED_PREFIX = "reservoir-staged-"
"""The prefix of the folders of copies from a bucket; a copy is removed as soon as its video is done."""

NOT_TRIED = "not-tried"


@dataclass(frozen=True)
class Extraction:
    """How videos are fetched and extracted.

    `config_digest` identifies the configuration of the segments. Retryable failures that were committed before
    `retry_before`, in seconds since 1970, are retried. `run` identifies this run of the job. `keep_media` is false for
    downloads without a raw folder. `marker` is a file that exists as long as the data folder does.
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


@dataclass(frozen=True)
class Fetched:
    """A raw video or its result, with its entry of the list; `replace` if an older object is overwritten."""

    video: RawVideo | Extracted
    replace: bool
    listed: ListedVideo


class Fetch(beam.DoFn):
    """(ListedVideo, replace) -> Fetched; on `NOT_TRIED` the reason for which a video was left to the next run.

    A machine stops downloading for the rest of the run after a bot check or repeated rate limits, and when its address
    has reached the daily limit of downloads.
    """

    def __init__(self, extraction: Extraction):
        self.extraction = extraction

    def setup(self) -> None:
        """Prepare the helpers; no file is opened and no process started before the first download."""
        self.reader = Extractor(self.extraction.config, self.extraction.limits)
        self.downloaders: dict[str, Downloader] = {}
        self.scratch: str | None = None
        self.breaker = Breaker(self.extraction.run)
        self.budget = Budget(self.extraction.politeness)
        self.pace = Pace()

    def process(self, element: tuple[ListedVideo, bool]) -> Iterator[Fetched | TaggedOutput]:
        """Read captions and metadata; download them and the media if they are not stored yet."""
        video, replace = element
        with timed("fetch"):
            fetched = self._fetch(video)
        if isinstance(fetched, Reason):
            count(JOB, f"{NOT_TRIED}-{fetched.value}")
            yield TaggedOutput(NOT_TRIED, fetched.value)
        else:
            yield Fetched(fetched, replace, video)

    def _fetch(self, video: ListedVideo) -> RawVideo | Extracted | Reason:
        """Return the raw video, its result if it has no media, or the reason for which it was not tried."""
        if video.refused:
            return rejected(video, video.refused, video.detail)
        try:
            if video.source is Source.YOUTUBE:
                return self._stored(video) or self._download(video)
            return self._stored(video) or rejected(video, Outcome.MEDIA_MISSING, Outcome.MEDIA_MISSING.sentence)
        except RawError as error:
            return rejected(video, error.outcome, str(error))
        except UserError:
            # The cause is not this video: the job cannot write, or lacks something that every video needs.
            raise
        except OSError as error:
            # The file was readable when the videos were listed, and may be readable again later.
            return rejected(video, Outcome.INPUT_UNREADABLE, str(error))
        except Exception as error:  # noqa: BLE001 - any error of one video is the outcome of that video alone
            return Extracted(crashed(video.id, error), 0.0)

    def _stored(self, video: ListedVideo) -> RawVideo | None:
        """Return a raw video on a disk, or a copy of one in a bucket, which is removed after its extraction."""
        if video.source is Source.FOLDER:
            if not filesystem.is_remote(video.place):
                return raw_videos.from_folder(video.place, video.beside)
            return self._copy(
                lambda folder: raw_videos.from_folder(raw_videos.stage(video.place, video.beside, folder), video.beside)
            )
        layout = raw_folder(video, self.extraction.out)
        required = video.source is Source.LAYOUT
        if not filesystem.is_remote(layout):
            paths = raw_videos.layout_paths(layout, video.id)
            # Without its metadata and captions a download was interrupted.
            complete = paths.media.is_file() and paths.info.is_file()
            return raw_videos.from_layout(layout, video.id) if complete or required else None
        return self._copy(
            lambda folder: (
                raw_videos.from_layout(folder, video.id)
                if raw_videos.stage_layout(layout, video.id, folder) or required
                else None
            )
        )

    def _copy(self, read: Callable[[str], RawVideo | None]) -> RawVideo | None:
        """Return the result of `read` for a new folder, which is removed if there is no video."""
        folder = tempfile.mkdtemp(dir=self._scratch())
        raw = None
        try:
            raw = read(folder)
        finally:
            if raw is None:
                shutil.rmtree(folder, ignore_errors=True)
        return raw

    def _download(self, video: ListedVideo) -> RawVideo | Extracted | Reason:
        """Return the downloaded video or its result, or the reason for which it was not tried."""
        if reason := self.breaker.reason():
            return self._stopped(reason)
        with self.budget.turn() as allowed:
            # While this worker waited for its turn, the breaker may have opened.
            if reason := self.breaker.reason():
                return self._stopped(reason)
            if not allowed:
                return Reason.DAILY_LIMIT
            layout = raw_folder(video, self.extraction.out)
            folder = self._scratch() if filesystem.is_remote(layout) else layout
            with self.pace.measured():
                fetched = self._downloader(folder)(video.id)
        self.breaker.note(fetched.outcome if isinstance(fetched, Result) else None)
        if isinstance(fetched, Result):
            return Extracted(fetched, 0.0)
        if filesystem.is_remote(video.place):
            raw_videos.store_layout(folder, video.id, video.place)
        return fetched

    def _stopped(self, reason: Reason) -> Reason:
        """Return the reason, on a machine that must not download any more."""
        if filesystem.is_remote(self.extraction.out):
            # Other machines continue. A machine that returned its videos at once would drain the list before they can.
            self.pace.wait()
        return reason

    def _scratch(self) -> str:
        """Return the folder of this worker's copies, created on first use."""
        self.scratch = self.scratch or tempfile.mkdtemp(prefix=STAGED_PREFIX)
        return self.scratch

    def teardown(self) -> None:
        """End the child and remove the copies."""
        self.reader.close()
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _downloader(self, folder: str) -> Downloader:
        # The downloader takes a second to import, which jobs on files do not need.
        from ingest.download.youtube import Downloader

        if folder not in self.downloaders:
            language, reader = self.extraction.config.language, self.reader
            self.downloaders[folder] = Downloader(
                folder, self.extraction.download, language, reader.screen, reader.check
            )
        return self.downloaders[folder]


def raw_folder(video: ListedVideo, out: str) -> str:
    """Return the folder in the raw layout for the downloads of a video."""
    return video.place or filesystem.join(out, "raw")


def rejected(video: ListedVideo, outcome: Outcome, detail: str) -> Extracted:
    """Return the result of a video without segments."""
    return Extracted(Result(outcome, detail, {}, VideoText(video.id)), 0.0)
