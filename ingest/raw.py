"""A raw video: its media file, caption tracks and metadata, from a folder or from the published raw layout.

Nothing is decoded or evaluated here; the rules evaluate missing files later. Input files are read within limits: larger
files are not allocated, and archives are decompressed in chunks.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ingest import folders
from ingest.folders import FolderVideo
from shards.outcomes import Outcome
from shards.storage import filesystem
from shards.storage.errors import UserError

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
CAPTION_FORMS = ("json3", "vtt", "srt")
"""Forms that can be read, the one that keeps most of the times first."""

CAPTION_BYTES = 16 << 20
"""Bytes of the longest caption file that is read: a hundred hours of word times."""

INFO_BYTES = 32 << 20
"""Bytes of the longest metadata object that is read, unpacked; yt-dlp's own has 1 or 2 MB, mostly formats."""

MAX_INFO_VALUES = 2_000_000
"""The largest number of values of a metadata object that is read; parsed, each takes about 100 bytes."""

MAX_NESTING = 64
"""Levels of the deepest metadata object that is read; yt-dlp's own has six."""


@dataclass(frozen=True)
class CaptionTrack:
    """One caption track as it was delivered.

    `code` is the language as the layout names it (`en`, `en-GB`, `en-orig`, `en-manual`), `form` is `vtt`, `srt` or
    `json3`. The code is `und` where no language is stated.
    """

    code: str
    form: str
    text: str


@dataclass(frozen=True)
class RawVideo:
    """Everything known of a video before processing; `media` is a path, `None` where there is no file."""

    id: str
    media: str | None
    captions: list[CaptionTrack] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


class RawError(UserError):
    """A raw folder or video cannot be used; the message names it, `outcome` how a video ends because of it."""

    def __init__(self, message: str, outcome: Outcome = Outcome.MEDIA_UNREADABLE):
        super().__init__(message)
        self.outcome = outcome


def list_videos(folder: str) -> list[FolderVideo]:
    """Return the media files of a folder of videos with the files beside them, by one listing.

    Raises `RawError` if the folder cannot be read or holds none.
    """
    if not filesystem.exists(folder):
        raise RawError(f"there is no folder {folder!r}")
    versions = filesystem.list_versions(folder)
    videos = folders.videos_of(versions)
    if not videos:
        hidden = sum(folders.is_hidden(path.rpartition("/")[2]) for path, _ in versions)
        also = f"; {hidden} hidden files are passed over" if hidden else ""
        raise RawError(
            f"the folder {folder!r} holds no videos (looked for {', '.join(sorted(folders.MEDIA_SUFFIXES))}{also})"
        )
    return videos


def list_folder(folder: str) -> list[str]:
    """Return the media files of a folder of videos, by path, each id once. Raises `RawError` as `list_videos` does."""
    return [video.media for video in list_videos(folder) if video.readable_name and not video.duplicate_of]


def from_folder(media: str, companions: Sequence[str] | None = None) -> RawVideo:
    """Return the raw video of a media file, with the captions and the `NAME.info.json` beside it.

    `companions` are the names of these, if the folder was listed already. Raises `RawError` for one that is too large,
    and `OSError` for one that cannot be read.
    """
    path = Path(media)
    if companions is None:
        companions = folders.companions_of(media)
    tracks, info = [], {}
    for name in sorted(companions):
        place = path.with_name(name)
        if folders.is_info(name):
            info = parse_info(_read(place, INFO_BYTES))
        elif code_and_form := folders.track_of(name, path.stem):
            tracks.append(CaptionTrack(*code_and_form, decode_text(_read(place, CAPTION_BYTES))))
    return RawVideo(folders.id_of(media), str(path), tracks, info)


def _read(path: Path, limit: int) -> bytes:
    """Return the bytes of a file of at most `limit`.

    Raises `RawError` for a longer one, which is not read to its end.
    """
    with path.open("rb") as file:
        return _limited(file, limit, path)


def _limited(file: BinaryIO | gzip.GzipFile, limit: int, path: Path) -> bytes:
    content = file.read(limit + 1)
    if len(content) > limit:
        raise RawError(f"{path} has more than {limit:,} bytes, which is not read", Outcome.TOO_LARGE)
    return content


@dataclass(frozen=True)
class LayoutPaths:
    """Where the files of one video are in the raw layout."""

    media: Path
    info: Path


def stage(media: str, companions: Sequence[str], scratch: str) -> str:
    """Copy a media file in a bucket, with the files beside it, into the folder `scratch`; its path there.

    Raises `RawError` if one of them is no longer there.
    """
    folder, _, name = media.rpartition("/")
    for beside in (*companions, name):
        place = filesystem.join(folder, beside)
        if not filesystem.copy_to(place, Path(scratch) / beside):
            raise RawError(f"{place} was listed and is not there", Outcome.INPUT_CHANGED)
    return str(Path(scratch) / name)


def stage_layout(folder: str, video_id: str, scratch: str) -> bool:
    """Copy the files of one video in the raw layout in a bucket into the same layout under `scratch`.

    Returns whether the media are there.
    """
    local = layout_paths(scratch, video_id)
    local.media.parent.mkdir(parents=True, exist_ok=True)
    copied = [filesystem.copy_to(filesystem.join(folder, *path.parts[-3:]), path) for path in (local.info, local.media)]
    return copied[1]


def store_layout(scratch: str, video_id: str, folder: str) -> None:
    """Copy one video's files from the raw layout on this machine into that of a bucket; the media come last."""
    here = layout_paths(scratch, video_id)
    for path in (here.info, here.media):
        if path.is_file():
            with path.open("rb") as source, filesystem.create(filesystem.join(folder, *path.parts[-3:])) as file:
                shutil.copyfileobj(source, file, 8 << 20)


def layout_paths(folder: str, video_id: str) -> LayoutPaths:
    """Return the places of a video under `folder/youtube_dump/ID/` (docs/spec/ingest.md 3)."""
    place = Path(folder) / "youtube_dump" / video_id
    return LayoutPaths(place / f"{video_id}.mp4", place / f"{video_id}.v2.info.json.gz")


def from_layout(folder: str, video_id: str) -> RawVideo:
    """Return the raw video in `folder/youtube_dump/ID/` (docs/spec/ingest.md 3), captions inside the info object."""
    places = layout_paths(folder, video_id)
    info: dict[str, Any] = {}
    if places.info.is_file():
        try:
            with gzip.open(places.info) as file:
                info = parse_info(_limited(file, INFO_BYTES, places.info))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise RawError(f"{places.info} is not a gzip file: {error}") from None
    transcripts, others = info.pop("transcripts", None), info.pop("_captions", None)
    tracks = [
        CaptionTrack(code, "vtt", text)
        for code, text in sorted((transcripts if isinstance(transcripts, dict) else {}).items())
        if isinstance(text, str)
    ]
    for code, track in sorted((others if isinstance(others, dict) else {}).items()):
        match track:
            case {"form": str(form), "text": str(text)} if form in CAPTION_FORMS:
                tracks.append(CaptionTrack(code, form, text))
    return RawVideo(video_id, str(places.media) if places.media.is_file() else None, tracks, info)


def list_layout(folder: str) -> list[tuple[str, str]]:
    """Return the ids stored under `folder/youtube_dump/`, each with what changes when its files do.

    Empty for a bucket.
    """
    place = filesystem.join(folder, "youtube_dump")
    if not filesystem.exists(place):
        raise RawError(f"there is no folder {place!r}")
    names = [name for name in filesystem.list_folders(place) if not folders.is_hidden(name)]
    if filesystem.is_remote(folder):
        return [(name, "") for name in names]
    return [(name, layout_version(folder, name)) for name in names]


def layout_version(folder: str, video_id: str) -> str:
    """Return what changes when the files of a video in the raw layout on this machine do."""
    paths = layout_paths(folder, video_id)
    return folders.current_version(str(paths.media), (paths.info.name,))


def decode_text(data: bytes) -> str:
    """Return text of a caption file or a list: UTF-8, with or without its mark, UTF-16 by its mark, else Windows-1252.

    Bytes that Windows-1252 does not define become U+FFFD, as bytes do that are not well formed UTF-16.
    """
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def parse_info(data: bytes) -> dict[str, Any]:
    """Return the metadata object.

    Anything that is not a JSON object of at most `MAX_NESTING` levels gives an empty one.

    Halves of surrogate pairs, which JSON can spell and UTF-8 cannot, become question marks. Raises `RawError` for more
    than `MAX_INFO_VALUES` values, before any is parsed.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_INFO_VALUES:
        raise RawError(f"the metadata have more than {MAX_INFO_VALUES:,} values and are not read", Outcome.TOO_LARGE)
    try:
        info = json.loads(data)
        if not _is_flat(info):
            return {}
        if _SURROGATE.search(data):
            info = json.loads(json.dumps(info, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def _is_flat(value: object) -> bool:
    """Return whether a value has at most `MAX_NESTING` levels, so that it can be sent to another process."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return True
    return False


def _inner(value: object) -> Iterable[object]:
    """Return the objects and arrays directly in a value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return ()
    return [item for item in value if isinstance(item, dict | list)]
