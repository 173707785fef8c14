"""The list of a job's videos, which workers read, so that the graph does not grow with the list."""

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
    """The source of a video; the values describe its `place`."""

    FOLDER = "a media file in a folder of videos"
    LAYOUT = "a folder in the raw layout"
    YOUTUBE = "a folder in the raw layout for downloads; empty for the one in the data folder"


@dataclass(frozen=True)
class ListedVideo:
    """One video of the list: its id, source and place, and the names of the files beside its media.

    `unread` names caption files in unsupported formats. `version` changes when one of the video's files changes.
    `refused` is the outcome of an entry that is not a valid video, and `detail` explains it. `earlier` is the outcome
    of a retried video in an earlier generation, as `kind/outcome`.
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
    """A list of videos, read from a folder of videos, a file of ids, or a raw folder, and the part of it to use.

    `part` is a pair (number from 1, count): the videos whose hashed ids fall into this part.
    """

    videos: str | None = None
    ids: str | None = None
    raw: str | None = None
    limit: int | None = None
    part: tuple[int, int] | None = None

    def read(self) -> Iterator[ListedVideo]:
        """Yield the videos in order; ids repeat unless there is a limit. Raises `RawError` for an empty source."""
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
            folder = self.raw or ""
            for name, version in raw_videos.list_layout(folder):
                yield ListedVideo(name, Source.LAYOUT, folder, version=version)


def _of_folder(video: FolderVideo) -> ListedVideo:
    """Return the entry of a media file; a file whose name is not a unique, readable id is refused."""
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
    """Return the list of videos that a command requests."""
    return VideoList(options.videos, options.ids, options.raw, options.limit, options.part)


def notes_of(options: PreprocessOptions) -> list[str]:
    """Return notes about the inputs of a job to print before it starts; inputs in buckets are not read."""
    if options.stage == "assemble":
        return []
    notes = []
    if options.ids:
        notes.append(age_note(datetime.date.today()))
        notes.append(None if filesystem.is_remote(options.ids) else column_note(options.ids))
    elif options.videos and not filesystem.is_remote(options.videos):
        hidden = sum(is_hidden(path.rpartition("/")[2]) for path in filesystem.list_files(options.videos))
        notes.append(f"{hidden} hidden files in {options.videos!r} are ignored" if hidden else None)
    return [note for note in notes if note]


def blocked_ids(path: str) -> Iterator[str]:
    """Return the ids in a block list."""
    return (resolved(entry)[0] for entry in read_entries(path))
