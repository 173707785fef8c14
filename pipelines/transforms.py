"""The steps of the jobs: thin shells around one call each into the rooms below.

An element is a small value; pictures and sound travel only between steps that Beam runs in one process.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from ingest import raw as raw_videos
from ingest.config import VideoConfig
from ingest.ids import video_id
from ingest.outcomes import Outcome
from ingest.raw import RawError, RawVideo
from ingest.result import Result
from ingest.similarity import GroupRules, group_pictures, judge
from pipelines import embedders, not_tried
from pipelines.breaker import Breaker
from pipelines.budget import Budget, Pace, Politeness
from pipelines.extraction import Extracted, Extractor
from pipelines.limits import Limits
from pipelines.metering import JOB, OUTCOME, count, spent, timed
from pipelines.not_tried import NotTried, Reason
from shards import filesystem, writer
from shards.generations import ShardPlan
from shards.ledger import Entry, Ledger
from shards.manifest import Shard
from shards.segments import SegmentStore, VideoText, segments_folder
from shards.text_store import TextStore

if TYPE_CHECKING:
    from ingest.config import DownloadConfig
    from ingest.download import Downloader


class Source(enum.Enum):
    """Where an item comes from, and so what its `place` is."""

    FOLDER = "a media file in a folder of videos"
    LAYOUT = "a folder in the raw layout"
    YOUTUBE = "a folder in the raw layout that downloads go to; empty for one in the data folder"


STAGED_PREFIX = "reservoir-staged-"
"""How the folders of copies from a bucket are named; a copy goes as soon as its video is done."""


KEPT = "kept"
"""What became of a group that was looked at and breaks no rule."""


@dataclass(frozen=True)
class Item:
    """One video to process: its id, where it comes from, and the place."""

    id: str
    source: Source
    place: str


def raw_folder(item: Item, out: str) -> str:
    """The folder in the raw layout that holds the downloads of an item."""
    return item.place or filesystem.join(out, "raw")


def is_here(item: Item, out: str) -> bool:
    """Whether the media of an id are in the raw folder already."""
    folder = raw_folder(item, out)
    paths = raw_videos.layout_paths(folder, item.id)
    return filesystem.exists(filesystem.join(folder, *paths.media.parts[-3:]))


def _is_copy(media: str) -> bool:
    """Whether a media file is our own copy in the temporary folder, which nobody else needs."""
    folder = Path(tempfile.gettempdir())
    path = Path(media)
    return path.is_relative_to(folder) and path.relative_to(folder).parts[0].startswith(STAGED_PREFIX)


class Fetch(beam.DoFn):
    """Item -> RawVideo, or the Extracted end of an item that cannot be had; NotTried in the output `not_tried.OUTPUT`.

    A machine stops downloading for the rest of the run, which the token `run` names, when one of its workers meets a
    bot check or several rate limits, and while the day's downloads of its address are used up.
    """

    def __init__(self, config: VideoConfig, download: DownloadConfig, out: str, politeness: Politeness, run: str):
        self.config, self.download, self.out, self.politeness, self.run = config, download, out, politeness, run

    def setup(self) -> None:
        """Nothing is opened before the first download."""
        self.downloaders: dict[str, Downloader] = {}
        self.scratch: str | None = None
        self.breaker = Breaker(self.run)
        self.budget = Budget(self.politeness)
        self.pace = Pace()

    def process(self, item: Item) -> Iterator[RawVideo | Extracted | TaggedOutput]:
        """Read captions and metadata; download them and the media where they are not here yet."""
        with timed("fetch"):
            fetched = self._fetched(item)
        if isinstance(fetched, NotTried):
            count(JOB, f"{not_tried.OUTPUT}-{fetched.reason.value}")
            yield TaggedOutput(not_tried.OUTPUT, fetched)
        else:
            yield fetched

    def _fetched(self, item: Item) -> RawVideo | Extracted | NotTried:
        """A raw video, how it ended, or why it was not tried."""
        try:
            if item.source is Source.YOUTUBE and video_id(item.id) != item.id:
                return _ended(item, Outcome.BAD_ID, Outcome.BAD_ID.sentence)
            if item.source is not Source.YOUTUBE or is_here(item, self.out):
                return self._stored(item)
            return self._downloaded(item)
        except filesystem.StorageError:
            # Not this video's fault: the job cannot write.
            raise
        except (RawError, OSError) as error:
            return _ended(item, Outcome.MEDIA_UNREADABLE, str(error))

    def _downloaded(self, item: Item) -> RawVideo | Extracted | NotTried:
        """What a download gives, or why there was none."""
        if reason := self.breaker.reason():
            return self._stopped(item, reason)
        with self.budget.turn() as allowed:
            # While this worker waited for its turn, another may have met a bot check.
            if reason := self.breaker.reason():
                return self._stopped(item, reason)
            if not allowed:
                return NotTried(item.id, Reason.DAILY_LIMIT)
            with self.pace.measured():
                fetched = self._downloader(self._folder(item))(item.id)
        if isinstance(fetched, Result):
            self.breaker.note(fetched.outcome)
            return Extracted(fetched, 0.0)
        if filesystem.is_remote(item.place):
            raw_videos.store_layout(self._folder(item), item.id, item.place)
        return fetched

    def _stopped(self, item: Item, reason: Reason) -> NotTried:
        """The end of an item on a machine that must not download any more."""
        if filesystem.is_remote(self.out):
            # Other machines may go on. One that returned its items at once would drain the list before they can.
            self.pace.wait()
        return NotTried(item.id, reason)

    def _stored(self, item: Item) -> RawVideo:
        """A raw video that is on the disk, or in a bucket: then a copy that goes when it has been extracted."""
        kept = raw_folder(item, self.out)
        if not filesystem.is_remote(kept):
            if item.source is Source.FOLDER:
                return raw_videos.from_folder(item.place)
            return raw_videos.from_layout(self._folder(item), item.id)
        scratch = tempfile.mkdtemp(dir=self._scratch())
        if item.source is Source.FOLDER:
            return raw_videos.from_folder(raw_videos.stage(item.place, scratch))
        raw_videos.stage_layout(kept, item.id, scratch)
        return raw_videos.from_layout(scratch, item.id)

    def _folder(self, item: Item) -> str:
        """The folder on this machine that downloads go to."""
        kept = raw_folder(item, self.out)
        return self._scratch() if filesystem.is_remote(kept) else kept

    def _scratch(self) -> str:
        """The folder of this worker's copies, made when it is first needed."""
        self.scratch = self.scratch or tempfile.mkdtemp(prefix=STAGED_PREFIX)
        return self.scratch

    def teardown(self) -> None:
        """Leave nothing on this machine."""
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _downloader(self, folder: str) -> Downloader:
        # What downloads, and what screens the downloaded, cost a second to import, which jobs on files should not pay.
        from ingest.download import Downloader
        from ingest.video import screen

        if folder not in self.downloaders:
            self.downloaders[folder] = Downloader(
                folder, self.download, self.config.language, lambda raw: screen(raw, self.config)
            )
        return self.downloaders[folder]


class Extract(beam.DoFn):
    """RawVideo -> Extracted, in a child process with limits."""

    def __init__(self, config: VideoConfig, limits: Limits, scratch: str | None, keep_media: bool):
        self.config, self.limits, self.scratch, self.keep_media = config, limits, scratch, keep_media

    def setup(self) -> None:
        """Prepare the child; it starts with the first video."""
        self.extractor = Extractor(self.config, self.limits, self.scratch)

    def process(self, element: RawVideo | Extracted) -> Iterator[Extracted]:
        """The result of one video; downloaded media that nobody wants to keep go at once."""
        if isinstance(element, Extracted):
            yield element
            return
        with timed("extract"):
            extracted = self.extractor(element)
        spent("extract-cpu", extracted.cpu_seconds)
        yield extracted
        if element.media:
            if _is_copy(element.media):
                shutil.rmtree(Path(element.media).parent, ignore_errors=True)
            elif not self.keep_media:
                Path(element.media).unlink(missing_ok=True)

    def teardown(self) -> None:
        """End the child."""
        self.extractor.close()


class Commit(beam.DoFn):
    """Extracted -> id: segments into the store in one step, then one line in the ledger."""

    def __init__(self, out: str, split: str, config_digest: str, part: str | None = None):
        self.out, self.split, self.config_digest, self.part = out, split, config_digest, part

    def setup(self) -> None:
        """Open the store and this worker's own ledger file."""
        self.store = SegmentStore(segments_folder(self.out))
        self.ledger = Ledger(self.out, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}", self.part)

    def process(self, extracted: Extracted) -> Iterator[str]:
        """Commit one video and record how it ended."""
        result = extracted.result
        with timed("commit"):
            if result.outcome is Outcome.EXTRACTED:
                self.store.commit(result.text, result.segments, self.config_digest, result.scores)
            self.ledger.append(entry_of(extracted, self.split))
        count(OUTCOME, result.outcome.value)
        count(JOB, "segments", len(result.segments))
        yield result.text.video_id


class WriteShard(beam.DoFn):
    """ShardPlan -> Shard: read the planned segments, write the shard; one that is finished already is kept.

    Groups whose pictures break a rule are left out; the sidecar says which, and their scores.
    """

    def __init__(self, out: str, rules: GroupRules):
        self.out, self.rules = out, rules

    def process(self, plan: ShardPlan) -> Iterator[Shard]:
        """Write one shard with its index and sidecar."""
        with timed("write-shard"):
            shard = self._written(plan)
        count(JOB, "examples", shard.examples)
        yield shard

    def _written(self, plan: ShardPlan) -> Shard:
        shard = writer.finished_shard(self.out, plan.name, plan.digest)
        if shard is None:
            store = SegmentStore(segments_folder(self.out))
            judged = self._judged(store, plan) if self.rules.active else []
            left_out = {group["number"] for group in judged if group["outcome"] != KEPT}
            plan = _without(plan, left_out)
            texts = TextStore(self.out).read(plan.texts) if plan.texts else None
            examples = writer.examples_of(store, plan.groups, texts)
            shard = writer.write_shard(self.out, plan.name, plan.digest, plan.groups, examples, plan.texts, judged)
        return shard

    def _judged(self, store: SegmentStore, plan: ShardPlan) -> list[dict[str, Any]]:
        """The scores of the groups that are looked at, and what became of each."""
        embed = embedders.load(self.rules.embedder)
        judged = []
        for number, group in enumerate(plan.groups):
            if embed and self.rules.draws(plan.name, number):
                segments = [s for run in group for s in store.read(store.get(run.video_id), run.first, run.stop)]
                scores = judge(group_pictures(segments), embed)
                broken = self.rules.broken(scores)
                runs = [[run.video_id, run.first, run.stop] for run in group]
                judged.append({"number": number, "runs": runs, **scores, "outcome": broken.value if broken else KEPT})
        return judged


def _without(plan: ShardPlan, numbers: set[int]) -> ShardPlan:
    kept = [i for i in range(len(plan.groups)) if i not in numbers]
    texts = [plan.texts[i] for i in kept] if plan.texts else []
    return dataclasses.replace(plan, groups=[plan.groups[i] for i in kept], texts=texts)


def _ended(item: Item, outcome: Outcome, detail: str) -> Extracted:
    return Extracted(Result(outcome, detail, {}, VideoText(item.id)), 0.0)


def entry_of(extracted: Extracted, split: str) -> Entry:
    """The ledger's line for a result."""
    result = extracted.result
    return Entry(
        id=result.text.video_id,
        outcome=result.outcome.value,
        kind=result.outcome.kind.value,
        detail=result.detail,
        scores=result.scores,
        split=split,
        segments=len(result.segments),
        video_seconds=result.scores.get("duration") or 0.0,
        cpu_seconds=round(extracted.cpu_seconds, 3),
        at=round(time.time(), 3),
    )
