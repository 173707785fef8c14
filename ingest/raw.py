"""A raw video: its media file, its caption tracks and its metadata, from a folder or from the published bucket layout.

Nothing here is decoded or judged; a missing file is a fact of the raw video and the rules say later what it means.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards import filesystem
from shards.errors import UserError

MEDIA_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv")
)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
CAPTION_FORMS = ("json3", "vtt", "srt")
"""Forms that can be read, the one that keeps most of the times first."""

_INFO_SUFFIX = ".info.json"
_CAPTION_FILE = re.compile(r"\.(?P<code>[A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)\.(?P<form>vtt|srt|json3)$")


@dataclass(frozen=True)
class CaptionTrack:
    """One caption track as it was delivered.

    `code` is the language as the layout names it (`en`, `en-GB`, `en-orig`, `en-manual`), `form` is `vtt`, `srt` or
    `json3`.
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
    """A raw folder cannot be used; the message names it."""


def list_folder(folder: str) -> list[str]:
    """The media files of a folder of videos, by path. Raises `RawError` if the folder cannot be read or holds none."""
    if not filesystem.exists(folder):
        raise RawError(f"there is no folder {folder!r}")
    found = [path for path in filesystem.list_files(folder) if Path(path).suffix.lower() in MEDIA_SUFFIXES]
    if not found:
        raise RawError(f"the folder {folder!r} holds no videos (looked for {', '.join(sorted(MEDIA_SUFFIXES))})")
    stems: dict[str, str] = {}
    for path in found:
        stem = Path(path).stem
        if stem in stems:
            raise RawError(f"{stems[stem]!r} and {path!r} have the same name; rename one, names are the videos' ids")
        stems[stem] = path
    return found


def list_folder_with_companions(folder: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The media files of a folder of videos, each with the names of its captions and its metadata, by one listing.

    Raises `RawError` as `list_folder` does.
    """
    media = list_folder(folder)
    companions: dict[str, list[str]] = {}
    for path in filesystem.list_files(folder):
        name = path.rpartition("/")[2]
        if (stem := _stem_of_companion(name)) is not None:
            companions.setdefault(stem, []).append(name)
    for path in media:
        yield path, tuple(companions.get(stem_of(path), ()))


def stem_of(media: str) -> str:
    """The id of a video: the name of its media file without the ending."""
    return Path(media).stem


def _stem_of_companion(name: str) -> str | None:
    """The name of the video that a file of captions or metadata belongs to; `None` for any other file."""
    if name.endswith(_INFO_SUFFIX):
        return name.removesuffix(_INFO_SUFFIX)
    match = _CAPTION_FILE.search(name)
    return name[: match.start()] if match else None


def from_folder(media: str, companions: Sequence[str] | None = None) -> RawVideo:
    """The raw video of a media file, with the captions and the `NAME.info.json` beside it.

    `companions` are the names of these, if the folder was listed already.
    """
    path = Path(media)
    if companions is None:
        names = (sibling.name for sibling in path.parent.iterdir() if sibling.is_file())
        companions = [name for name in names if _stem_of_companion(name) == path.stem]
    tracks, info = [], {}
    for name in sorted(companions):
        content = path.with_name(name).read_bytes()
        if name.endswith(_INFO_SUFFIX):
            info = parse_info(content)
            continue
        match = _CAPTION_FILE.search(name)
        code, form = match["code"], match["form"]
        # yt-dlp writes ASR tracks as vtt; an srt beside a video was put there by a person.
        if form == "srt" and not code.endswith("-manual"):
            code = f"{code}-manual"
        tracks.append(CaptionTrack(code, form, decode_text(content)))
    return RawVideo(path.stem, str(path), tracks, info)


@dataclass(frozen=True)
class LayoutPaths:
    """Where the files of one video are in the raw layout."""

    media: Path
    info: Path


def stage(media: str, companions: Sequence[str], scratch: str) -> str:
    """Copy a media file in a bucket, with the files beside it, into the folder `scratch`; its path there."""
    folder, _, name = media.rpartition("/")
    for beside in (*companions, name):
        filesystem.copy_to(filesystem.join(folder, beside), Path(scratch) / beside)
    return str(Path(scratch) / name)


def stage_layout(folder: str, video_id: str, scratch: str) -> bool:
    """Copy the files of one video in the raw layout in a bucket into the same layout under `scratch`.

    Returns whether the media are there.
    """
    here = layout_paths(scratch, video_id)
    here.media.parent.mkdir(parents=True, exist_ok=True)
    found = [filesystem.copy_to(filesystem.join(folder, *path.parts[-3:]), path) for path in (here.info, here.media)]
    return found[1]


def store_layout(scratch: str, video_id: str, folder: str) -> None:
    """Copy one video's files from the raw layout on this machine into that of a bucket; the media come last."""
    here = layout_paths(scratch, video_id)
    for path in (here.info, here.media):
        if path.is_file():
            with path.open("rb") as source, filesystem.create(filesystem.join(folder, *path.parts[-3:])) as file:
                shutil.copyfileobj(source, file, 8 << 20)


def layout_paths(folder: str, video_id: str) -> LayoutPaths:
    """The places of a video under `folder/youtube_dump/ID/` (spec ingest.md 3)."""
    place = Path(folder) / "youtube_dump" / video_id
    return LayoutPaths(place / f"{video_id}.mp4", place / f"{video_id}.v2.info.json.gz")


def from_layout(folder: str, video_id: str) -> RawVideo:
    """The raw video in `folder/youtube_dump/ID/` (spec ingest.md 3), captions inside the info object."""
    places = layout_paths(folder, video_id)
    info: dict[str, Any] = {}
    if places.info.is_file():
        try:
            info = parse_info(gzip.decompress(places.info.read_bytes()))
        except (OSError, EOFError, zlib.error) as error:
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


def list_layout(folder: str) -> list[str]:
    """The ids stored under `folder/youtube_dump/`."""
    place = filesystem.join(folder, "youtube_dump")
    if not filesystem.exists(place):
        raise RawError(f"there is no folder {place!r}")
    return filesystem.list_folders(place)


def decode_text(data: bytes) -> str:
    """Text of a caption file whatever its encoding: UTF-8 or UTF-16 by their marks, else Latin-1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_info(data: bytes) -> dict[str, Any]:
    """The metadata object; anything that is not a JSON object gives an empty one.

    Halves of surrogate pairs, which JSON can spell and UTF-8 cannot, become question marks.
    """
    try:
        info = json.loads(data)
        if _SURROGATE.search(data):
            info = json.loads(json.dumps(info, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}
