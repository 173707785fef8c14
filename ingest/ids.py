"""Extract the video id of a list entry: an id, or a YouTube URL in any common form."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from shards.outcomes import Outcome

_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_LEADING_ID = re.compile(r"([A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])")
_SITES = ("youtube.com", "youtube-nocookie.com", "youtube.googleapis.com")
_SHORT_SITE = "youtu.be"
_VIDEO_PATHS = frozenset(("shorts", "embed", "live", "v", "vi", "e", "watch", "video"))
_NOT_IDS = frozenset(("live_stream", "videoseries"))
"""Words of eleven letters that addresses have where others have an id."""

_MANY_PATHS = frozenset(
    ("playlist", "channel", "c", "user", "feed", "results", "hashtag", "show", "gaming", "videoseries")
)
_MANY_IDS = re.compile(r"@[\w.-]{3,}|UC[\w-]{22}|(?:PL|UU|FL|OLAK5uy_|RDCLAK)[\w-]{10,}")
_NESTED = ("u", "url", "q", "continue", "next", "continue_action")
_ARCHIVED = "youtube "
"""How the lines of yt-dlp's download archives begin."""

_WRAPPING = "<>()[]{}\"'`“”‘’«»"
_TRAILING = ".,;:!?" + _WRAPPING
_DEEPEST = 4
"""Addresses inside addresses that are followed: of consent pages, redirects and links that were shared."""


def video_id(entry: str) -> str | None:
    """Return the id that an entry names, itself or as an address of YouTube; `None` if it names none, or several."""
    return _video_id(_plain(entry), _DEEPEST)


def refusal(entry: str) -> tuple[Outcome, str]:
    """Return outcome and detail of an entry that is not a video: a playlist or channel, or not a YouTube URL."""
    plain = _plain(entry)
    outcome = Outcome.PLAYLIST if _names_many(plain, _DEEPEST) else Outcome.BAD_ID
    return outcome, f"{entry[:200]!r}: {outcome.sentence}"


def _plain(entry: str) -> str:
    """Return an entry without what surrounds an address in a text, and with the marks of HTML read."""
    plain = html.unescape(entry.strip().strip("\ufeff\0")).strip()
    plain = plain.removeprefix(_ARCHIVED)
    # A trailing `-` or `_` may be part of an id.
    return plain.lstrip(_WRAPPING).rstrip(_TRAILING).strip()


def _video_id(plain: str, depth: int) -> str | None:
    if _ID.fullmatch(plain):
        return None if plain in _NOT_IDS else plain
    if (address := _Address.of(plain)) is None:
        return None
    if address.is_short:
        candidates = [address.path[:1], address.path[1:2], address.values("v")]
    elif address.is_site:
        after = address.path[1:2] if address.first in _VIDEO_PATHS else []
        candidates = [address.values("v"), address.values("vi"), after]
    else:
        candidates = []
    for candidate in (value for values in candidates for value in values):
        match = _LEADING_ID.match(candidate)
        if match and match[1] not in _NOT_IDS:
            return match[1]
    if depth:
        for nested in address.nested():
            if (named := _video_id(nested, depth - 1)) is not None:
                return named
    return None


def _names_many(plain: str, depth: int) -> bool:
    if _MANY_IDS.fullmatch(plain):
        return True
    address = _Address.of(plain)
    if address is None:
        return False
    if address.is_site or address.is_short:
        last = address.path[1] if len(address.path) > 1 else ""
        many = address.first in _MANY_PATHS or address.first.startswith("@") or last in _NOT_IDS
        if many or address.values("list"):
            return True
    return depth > 0 and any(_names_many(nested, depth - 1) for nested in address.nested())


class _Address:
    """The parts of an address: its host, the parts of its path, and the values of its query and fragment."""

    def __init__(self, host: str, path: list[str], query: list[tuple[str, str]]):
        self.host, self.path, self.query = host, path, query
        self.first = path[0].lower() if path else ""
        self.is_short = _is_of(host, _SHORT_SITE)
        self.is_site = any(_is_of(host, site) for site in _SITES)

    @classmethod
    def of(cls, plain: str) -> _Address | None:
        """Return the parts of what may be an address without its scheme; `None` if it cannot be one."""
        try:
            parts = urlsplit(plain if "//" in plain.split("?")[0] else f"https://{plain}")
            host = (parts.hostname or "").rstrip(".")
        except ValueError:
            return None
        # Old addresses have their query in the fragment, as in `#!v=ID`, and some have it there twice.
        fragment = parts.fragment.lstrip("!/").rpartition("?")[2]
        query = [pair for text in (parts.query, parts.query.replace("?", "&"), fragment) for pair in parse_qsl(text)]
        return cls(host, [unquote(part) for part in parts.path.split("/") if part], query)

    def values(self, name: str) -> list[str]:
        """Return the values of one name of the query."""
        return [value for key, value in self.query if key.lower() == name]

    def nested(self) -> Iterator[str]:
        """Yield the addresses that the query carries, those without a host completed."""
        for name in _NESTED:
            for value in self.values(name):
                yield f"https://www.youtube.com{value}" if value.startswith("/") and value[1:2] != "/" else value


def _is_of(host: str, site: str) -> bool:
    return host == site or host.endswith(f".{site}")
