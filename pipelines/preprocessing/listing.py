"""Which videos a job is about: read where a worker is, so that the graph does not grow with the list."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ingest import raw as raw_videos
from ingest.ids import read_entries, video_id
from pipelines.options import PreprocessOptions
from shards.randomness import digest


class Source(enum.Enum):
    """Where a video comes from, and so what its `place` is."""

    FOLDER = "a media file in a folder of videos"
    LAYOUT = "a folder in the raw layout"
    YOUTUBE = "a folder in the raw layout that downloads go to; empty for one in the data folder"


@dataclass(frozen=True)
class ListedVideo:
    """One video of the list: its id, where it comes from, the place, and the names of the files beside its media.

    `earlier` is how it ended in an earlier generation, as `kind/outcome`, if it is tried again.
    """

    id: str
    source: Source
    place: str
    beside: tuple[str, ...] = ()
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
            for media, beside in raw_videos.list_folder_with_companions(self.videos):
                yield ListedVideo(raw_videos.stem_of(media), Source.FOLDER, media, beside)
        elif self.ids:
            for entry in read_entries(self.ids):
                yield ListedVideo(video_id(entry) or entry, Source.YOUTUBE, self.raw or "")
        else:
            for name in raw_videos.list_layout(self.raw):
                yield ListedVideo(name, Source.LAYOUT, self.raw)


def _distinct(videos: Iterator[ListedVideo]) -> Iterator[ListedVideo]:
    seen: set[str] = set()
    for video in videos:
        if video.id not in seen:
            seen.add(video.id)
            yield video


def list_of(options: PreprocessOptions) -> VideoList:
    """The list that a command names."""
    return VideoList(options.videos, options.ids, options.raw, options.limit, options.part)


def blocked_ids(path: str) -> Iterator[str]:
    """The ids of a block list."""
    return (video_id(entry) or entry for entry in read_entries(path))
