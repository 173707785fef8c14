"""Which videos a job is about: read where a worker is, so that the graph does not grow with the list."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ingest import raw as raw_videos
from ingest.download.yt_dlp_flags import age_note
from ingest.folders import FolderVideo, is_hidden
from ingest.id_lists import column_note, read_entries, resolved
from pipelines.preprocessing.options import PreprocessOptions
from shards.outcomes import Outcome
from shards.storage import filesystem
from shards.storage.randomness import digest


class Source(enum.Enum):
    """Where a video comes from, and so what its `place` is."""

    FOLDER = "a media file in a folder of videos"
    LAYOUT = "a folder in the raw layout"
    YOUTUBE = "a folder in the raw layout that downloads go to; empty for one in the data folder"


@dataclass(frozen=True)
class ListedVideo:
    """One video of the list: its id, where it comes from, the place, and the names of the files beside its media.

    `unread` names files of captions in forms that are not read. `version` changes when one of the files that are read
    does. `refused` is the outcome that an entry has which is no video to try, and `detail` its sentence. `earlier` is
    how the video ended in an earlier generation, as `kind/outcome`, if it is tried again.
    """

    id: str
    source: Source
    place: str
    beside: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    version: str = ""
    refused: Outcome | None = None
    detail: str = ""
    blocked: bool = False
    earlier: str = ""


@dataclass(frozen=True)
class VideoList:
    """A list of videos: one of a folder of videos, a file of ids, or a raw folder, and how much of it.

    `part` is a pair (number from 1, of): the videos whose ids fall into this part by hash.
    """

    videos: str | None = None
    ids: str | None = None
    raw: str | None = None
    limit: int | None = None
    part: tuple[int, int] | None = None

    def read(self) -> Iterator[ListedVideo]:
        """The videos in order; of a list with repeated ids, repeated. Raises `RawError` if there is nothing to read."""
        listed = self._all()
        if self.part:
            number, of = self.part
            listed = (v for v in listed if int.from_bytes(digest(0, "part", v.id)[:8], "little") % of == number - 1)
        return listed if self.limit is None else itertools.islice(_distinct(listed), self.limit)

    def _all(self) -> Iterator[ListedVideo]:
        if self.videos:
            for video in raw_videos.list_videos(self.videos):
                yield _of_folder(video)
        elif self.ids:
            for entry in read_entries(self.ids):
                name, refused, detail = resolved(entry)
                yield ListedVideo(name, Source.YOUTUBE, self.raw or "", refused=refused, detail=detail)
        else:
            for name, version in raw_videos.list_layout(self.raw):
                yield ListedVideo(name, Source.LAYOUT, self.raw, version=version)


def _of_folder(video: FolderVideo) -> ListedVideo:
    """A file of a folder of videos; one whose name cannot be an id of its own is refused."""
    listed = ListedVideo(video.id, Source.FOLDER, video.media, video.beside, video.unread, video.version)
    if video.duplicate_of:
        detail = f"{video.duplicate_of!r} has the same name up to its ending and was used; rename one of the two"
        return dataclasses.replace(listed, refused=Outcome.DUPLICATE_NAME, detail=detail)
    if not video.readable_name:
        detail = f"the name of the file {video.media!r} is not UTF-8; rename the file"
        return dataclasses.replace(listed, refused=Outcome.BAD_ID, detail=detail)
    return listed


def _distinct(videos: Iterator[ListedVideo]) -> Iterator[ListedVideo]:
    seen: set[str] = set()
    for video in videos:
        if video.id not in seen:
            seen.add(video.id)
            yield video


def list_of(options: PreprocessOptions) -> VideoList:
    """The list that a command names."""
    return VideoList(options.videos, options.ids, options.raw, options.limit, options.part)


def notes_of(options: PreprocessOptions) -> list[str]:
    """What a person should know of the inputs of a job before it starts; lists in buckets are not looked at."""
    if options.stage == "assemble":
        return []
    notes = []
    if options.ids:
        notes.append(age_note(datetime.date.today()))
        notes.append(None if filesystem.is_remote(options.ids) else column_note(options.ids))
    elif options.videos and not filesystem.is_remote(options.videos):
        hidden = sum(is_hidden(path.rpartition("/")[2]) for path in filesystem.list_files(options.videos))
        notes.append(f"{hidden} hidden files in {options.videos!r} are passed over" if hidden else None)
    return [note for note in notes if note]


def blocked_ids(path: str) -> Iterator[str]:
    """The ids of a block list."""
    return (resolved(entry)[0] for entry in read_entries(path))
