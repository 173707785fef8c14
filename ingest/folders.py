"""A folder of videos: its media files, the companion files that belong to them, and skipped files.

Files are matched by name, so that a folder is listed once for all of its videos.
"""

from __future__ import annotations

import bisect
import functools
import os
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.language_codes import UNKNOWN
from shards.storage import local_files
from shards.storage.randomness import digest

MEDIA_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv")
)
_FIRST_SUFFIX = ".mp4"
_INFO_SUFFIX = ".info.json"
_FORMS = (".vtt", ".srt", ".json3")
_UNREAD_FORMS = frozenset(
    (*(".ass", ".ssa", ".sbv", ".ttml", ".dfxp", ".srv1", ".srv2", ".srv3", ".lrc", ".sub", ".smi", ".stl", ".scc"),)
)
_CODE = re.compile(r"(?P<stem>.*)\.(?P<code>[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*)", re.DOTALL)
_MANUAL_SUFFIX = "-manual"
_MARKS = ("orig", "manual")
_FRESH_SECONDS = 0.1
"""A folder that changed this recently may change again without a new time; its listing is not cached."""


@dataclass(frozen=True)
class FolderVideo:
    """A media file of a folder with the names of its companion files, and of captions in unsupported formats.

    `version` changes when one of these files does. `duplicate_of` is the file that has the id already, and
    `readable_name` is whether the name is UTF-8.
    """

    id: str
    media: str
    beside: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    version: str = ""
    duplicate_of: str = ""
    readable_name: bool = True


def is_hidden(name: str) -> bool:
    """Return whether a file is hidden, such as the `._` files of macOS."""
    return name.startswith(".")


def is_media(name: str) -> bool:
    """Return whether a name is that of a media file."""
    return not is_hidden(name) and Path(name).suffix.lower() in MEDIA_SUFFIXES


def is_info(name: str) -> bool:
    """Return whether a name is that of a metadata file."""
    return name.lower().endswith(_INFO_SUFFIX)


def id_of(media: str) -> str:
    """Return the id of a video: the printable name of its media file without the suffix."""
    return printable(Path(media).stem)


def printable(text: str) -> str:
    """Return a text with control characters and bytes that are not UTF-8 written as escapes, such as `\\xe9`."""
    escaped = "".join(c if unicodedata.category(c) != "Cc" else c.encode("unicode_escape").decode() for c in text)
    return os.fsencode(escaped).decode(errors="backslashreplace") if not _is_utf8(escaped) else escaped


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def track_of(name: str, stem: str) -> tuple[str, str] | None:
    """Code and form of the caption file `name` of the video `stem`; `None` if it cannot be read as one.

    The code is spelled as the raw layout spells it: `en-US` of `NAME.EN_us.vtt`. `NAME.vtt` states no language. yt-dlp
    writes ASR tracks as vtt; an srt beside a video was put there by a person, so it counts as uploaded.
    """
    form = Path(name).suffix
    body, form = name.removesuffix(form), form.lower()
    if form not in _FORMS:
        return None
    code = UNKNOWN if body == stem else _spelled(body[len(stem) + 1 :])
    if form == ".srt" and not code.endswith(_MANUAL_SUFFIX):
        code += _MANUAL_SUFFIX
    return code, form[1:]


def _spelled(code: str) -> str:
    language, *parts = code.replace("_", "-").split("-")
    return "-".join([language.lower(), *(p.lower() if p.lower() in _MARKS else p for p in parts)])


def _stems_of(name: str) -> Iterator[str]:
    """Yield the stems of the videos that a file of captions or metadata may belong to, the likeliest first."""
    if is_hidden(name):
        return
    if is_info(name):
        yield name[: -len(_INFO_SUFFIX)]
        return
    form = Path(name).suffix
    body = name.removesuffix(form)
    if form.lower() in _FORMS or form.lower() in _UNREAD_FORMS:
        yield body
        if match := _CODE.fullmatch(body):
            yield match["stem"]


def videos_of(versions: Iterable[tuple[str, str]]) -> list[FolderVideo]:
    """Return the videos among the files of one folder, given as paths with what changes when their content does.

    Of several media files with one stem an `.mp4` has the id, or else the first; the others have their whole name.
    """
    files = {path.rpartition("/")[2]: (path, version) for path, version in versions}
    media = sorted((name for name in files if is_media(name)), key=lambda n: (not n.lower().endswith(_FIRST_SUFFIX), n))
    first: dict[str, str] = {}
    for name in media:
        first.setdefault(Path(name).stem, name)
    beside: dict[str, list[str]] = {}
    for name in files:
        if (stem := next((stem for stem in _stems_of(name) if stem in first), None)) is not None:
            beside.setdefault(stem, []).append(name)
    return sorted((_video(name, files, first, beside) for name in media), key=lambda video: video.media)


def _video(
    name: str, files: dict[str, tuple[str, str]], first: dict[str, str], beside: dict[str, list[str]]
) -> FolderVideo:
    path, version = files[name]
    stem = Path(name).stem
    if first[stem] != name:
        return FolderVideo(
            printable(name), printable(path), version=_version({name: version}), duplicate_of=printable(first[stem])
        )
    companions = sorted(beside.get(stem, ()))
    read = tuple(other for other in companions if is_info(other) or track_of(other, stem))
    if not _is_utf8(path):
        return FolderVideo(printable(stem), printable(path), readable_name=False)
    unread = tuple(other for other in companions if other not in read)
    return FolderVideo(printable(stem), path, read, unread, _version({n: files[n][1] for n in (name, *read)}))


def _version(versions: dict[str, str]) -> str:
    """Return a digest that changes when one of several files does."""
    return digest(0, "version", *(part for pair in versions.items() for part in pair)).hex()


def current_version(path: str, beside: Sequence[str] = ()) -> str:
    """Return the version of files on this machine as `videos_of` gives it.

    That of a file that is not there is empty.
    """
    place = Path(path)
    return _version({name: local_files.version(str(place.with_name(name))) for name in (place.name, *beside)})


def companions_of(media: str) -> list[str]:
    """Return the names of the files that belong to a media file, from a cached listing of its folder."""
    path = Path(media)
    folder = path.parent
    changed = folder.stat().st_mtime_ns
    is_fresh = time.time() - changed / 1e9 < _FRESH_SECONDS
    names = _listed(folder) if is_fresh else _names(str(folder), changed)
    return [name for name in _starting(names, f"{path.stem}.") if _belongs(name, path.stem, names)]


@functools.lru_cache(maxsize=4)
def _names(folder: str, changed: int) -> list[str]:
    """Return the sorted names in a folder as it was at a time of change."""
    del changed
    return _listed(Path(folder))


def _listed(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _starting(names: list[str], prefix: str) -> Iterator[str]:
    for place in range(bisect.bisect_left(names, prefix), len(names)):
        if not names[place].startswith(prefix):
            return
        yield names[place]


def _belongs(name: str, stem: str, names: list[str]) -> bool:
    """Return whether a file is read for the video `stem` and not for another one whose stem fits better."""
    if not (is_info(name) or track_of(name, stem)):
        return False
    for candidate in _stems_of(name):
        if candidate == stem:
            return True
        if any(is_media(other) and Path(other).stem == candidate for other in _starting(names, f"{candidate}.")):
            return False
    return False
