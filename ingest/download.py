"""A video id becomes a raw video in the published layout, through yt-dlp.

Metadata and captions come first, so that a video that the rules reject costs no media. Captions are fetched one by one
and their failure never costs the video. Every failure ends as a named outcome; a bot check is a sign to stop, never
something to get around.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yt_dlp import YoutubeDL
from yt_dlp.networking.exceptions import HTTPError, TransportError
from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, YoutubeDLError

from ingest import media, secret_files
from ingest.config import DownloadConfig
from ingest.ffmpeg import ffmpeg_path
from ingest.media import MediaError
from ingest.outcomes import Outcome
from ingest.raw import CaptionTrack, LayoutPaths, RawVideo, decode_text, layout_paths
from ingest.result import Result
from shards import filesystem
from shards.filesystem import TEMPORARY_PREFIX
from shards.segments import VideoText

_CAPTION_FORMS = ("vtt", "json3", "srt")
_CAPTION_ATTEMPTS = 3
_LONGEST_WAIT = 30.0
"""Seconds that a server may ask us to wait before the answer counts as no."""

_DROPPED_KEYS = frozenset(
    (
        *("automatic_captions", "formats", "url", "http_headers", "thumbnails", "thumbnail", "playlist", "is_live"),
        *("subtitles", "protocol", "playlist_index", "extractor_key", "extractor", "requested_formats", "fragments"),
        *("requested_downloads", "requested_subtitles", "filepath", "_filename", "filename", "heatmap", "manifest_url"),
    )
)

_TEXTS: tuple[tuple[Outcome, tuple[str, ...]], ...] = (
    (Outcome.RATE_LIMITED, ("rate-limited by youtube", "too many requests", "http error 429")),
    (Outcome.BOT_CHECK, ("not a bot", "captcha challenge", "content isn't available, try again later")),
    (Outcome.AGE_RESTRICTED, ("confirm your age", "age-restricted", "inappropriate for some users")),
    (Outcome.MEMBERS_ONLY, ("members-only", "members only", "join this channel", "channel's members")),
    (Outcome.PRIVATE, ("private video", "video is private")),
    (Outcome.GEO_BLOCKED, ("available in your country", "blocked it in your country", "geo restrict")),
    (Outcome.NOT_YET, ("premieres in", "premiere will begin", "live event will begin", "begin in a few moments")),
    (Outcome.LIVE, ("live stream recording is not available", "is not currently live")),
    (
        Outcome.REMOVED,
        ("has been removed", "been terminated", "no longer available", "video unavailable", "account associated"),
    ),
    (Outcome.NO_FORMAT, ("requested format is not available", "no video formats found")),
    (Outcome.NOT_FOUND, ("does not exist", "incomplete youtube id", "http error 404", "http error 410")),
    (Outcome.FORBIDDEN, ("http error 403",)),
    (Outcome.SERVER, ("http error 5",)),
    (Outcome.TRUNCATED, ("more expected", "downloaded file is empty", "did not get any data", "incompleteread")),
    (Outcome.NETWORK, ("timed out", "connection", "unable to download", "resolve", "network is unreachable")),
)
"""What yt-dlp says and means; where several fit, the first one counts."""


class _Silent(logging.Handler):
    """yt-dlp's own words reach the outcome; nothing is printed."""

    def emit(self, record: logging.LogRecord) -> None:
        """Drop the record."""


class Downloader:
    """Downloads into `folder` (raw layout); `screen` may reject a video by its text before its media are fetched.

    Cookies and the proxy's address are read at the first download and stay in memory.
    """

    def __init__(
        self,
        folder: str,
        config: DownloadConfig,
        language: str,
        screen: Callable[[RawVideo], Result | None] = lambda raw: None,
    ):
        self.folder, self.config, self.language, self.screen = folder, config, language, screen
        logger = logging.getLogger("reservoir.yt_dlp")
        logger.handlers, logger.propagate = [_Silent()], False
        self._options = {
            "format": config.format,
            "socket_timeout": 20,
            "retries": 3,
            "fragment_retries": 3,
            "extractor_retries": 1,
            "cachedir": False,
            "merge_output_format": "mp4",
            **config.options(),
            "logger": logger,
            "noprogress": True,
            "quiet": True,
            "ffmpeg_location": ffmpeg_path(),
            "noplaylist": True,
            "outtmpl": {"default": "%(id)s.%(ext)s"},
            "ignoreerrors": False,
            "overwrites": True,
        }
        self._secrets_read = False
        self._cookies: str | None = None
        self._hidden: tuple[str, ...] = ()

    def __call__(self, video_id: str) -> RawVideo | Result:
        """The raw video, from what is stored or from the net; or how it ended without one."""
        stored = layout_paths(self.folder, video_id)
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=self.folder) as scratch:
            try:
                with self._youtube(scratch) as ydl:
                    return self._download(ydl, video_id, stored, Path(scratch))
            except (YoutubeDLError, OSError) as error:
                if isinstance(error, filesystem.StorageError):
                    raise
                outcome, detail = classify(error)
                if "no space left" in detail.lower():
                    # The next video would meet the same, and this one has done nothing wrong.
                    raise filesystem.StorageError(f"cannot download to {self.folder!r}: no space left") from error
                return _ended(video_id, outcome, self._without_secrets(detail))

    @contextlib.contextmanager
    def _youtube(self, scratch: str) -> Iterator[YoutubeDL]:
        """yt-dlp with the folder, proxy and cookies of one download; what servers set in the cookies is kept."""
        self._read_secrets()
        options = self._options | {"paths": {"home": scratch, "temp": scratch}}
        if self._cookies is None:
            with YoutubeDL(options) as ydl:
                yield ydl
            return
        jar = io.StringIO(self._cookies)
        with YoutubeDL(options | {"cookiefile": jar}) as ydl:
            yield ydl
        # yt-dlp cuts the text to nothing and writes where its reading ended, so what is before that are NULs.
        self._cookies = jar.getvalue().lstrip("\0")

    def _read_secrets(self) -> None:
        """Read cookies and proxy if that was not done. Raises `StorageError`, which does not show them."""
        if self._secrets_read:
            return
        if self.config.cookies:
            self._cookies = secret_files.read_cookies(self.config.cookies)
        if self.config.proxy_from:
            address = secret_files.read_proxy(self.config.proxy_from)
            parts = urlsplit(address)
            self._options["proxy"] = address
            self._hidden = tuple(filter(None, (address, parts.netloc, parts.password)))
        self._secrets_read = True

    def _without_secrets(self, detail: str) -> str:
        """A sentence of yt-dlp, which may quote the proxy, without its address and password."""
        for secret in self._hidden:
            detail = detail.replace(secret, "***")
        return detail

    def _download(self, ydl: YoutubeDL, video_id: str, stored: LayoutPaths, scratch: Path) -> RawVideo | Result:
        address = f"https://www.youtube.com/watch?v={video_id}"
        found = ydl.extract_info(address, download=False, process=False)
        if found is None:
            return _ended(video_id, Outcome.SKIPPED, "yt-dlp's archive or filter passes over it")
        state = found.get("live_status")
        if found.get("is_live") or state in ("is_live", "post_live"):
            return _ended(video_id, Outcome.LIVE, f"live status {state or 'is_live'}")
        if state == "is_upcoming":
            return _ended(video_id, Outcome.NOT_YET, "the video is announced")
        tracks, refused = self._captions(ydl, found)
        info = {k: v for k, v in found.items() if k not in _DROPPED_KEYS and not k.startswith("__")}
        info["id"] = video_id
        raw = RawVideo(video_id, None, tracks, info)
        if refused and not tracks:
            store_info(stored.info, info, tracks)
            return _ended(video_id, _caption_outcome(refused), refused[0][1])
        if rejected := self.screen(raw):
            store_info(stored.info, info, tracks)
            return rejected
        if not stored.media.is_file():
            problem = self._media(ydl, found, scratch, video_id, stored.media)
            if problem:
                return problem
        store_info(stored.info, info, tracks)
        return RawVideo(video_id, str(stored.media), tracks, info)

    def _media(self, ydl: YoutubeDL, found: dict, scratch: Path, video_id: str, target: Path) -> Result | None:
        ydl.process_ie_result(found, download=True)
        files = [p for p in scratch.glob(f"{video_id}.*") if p.suffix in (".mp4", ".m4v", ".mkv", ".webm")]
        if not files:
            return _ended(video_id, Outcome.TRUNCATED, "yt-dlp ended without a media file")
        try:
            probe = media.probe(str(files[0]))
        except MediaError as error:
            return _ended(video_id, Outcome.TRUNCATED, str(error))
        if not probe.has_picture:
            return _ended(video_id, Outcome.TRUNCATED, "the media hold no picture")
        target.parent.mkdir(parents=True, exist_ok=True)
        files[0].replace(target)
        return None

    def _captions(self, ydl: YoutubeDL, found: dict) -> tuple[list[CaptionTrack], list[tuple[Exception, str]]]:
        """The wanted tracks that could be had, and what stood in the way of the others."""
        tracks, refused = [], []
        for code, form, address in wanted_captions(found, self.language):
            try:
                tracks.append(CaptionTrack(code, form, decode_text(_fetch(ydl, address))))
            except (YoutubeDLError, OSError) as error:
                refused.append((error, f"caption track {code!r}: {str(error)[:200]}"))
        return tracks, refused


def wanted_captions(info: dict[str, Any], language: str) -> Iterator[tuple[str, str, str]]:
    """(code, form, address) of the tracks in `language` that the metadata advertise; uploaded ones get `-manual`."""
    for kind, suffix in (("automatic_captions", ""), ("subtitles", "-manual")):
        for code, forms in sorted((info.get(kind) or {}).items()):
            if code.split("-")[0].lower() != language.split("-")[0].lower():
                continue
            addresses = {f["ext"]: f["url"] for f in forms or () if f.get("ext") in _CAPTION_FORMS and f.get("url")}
            for form in _CAPTION_FORMS:
                if form in addresses:
                    yield code + suffix, form, addresses[form]
                    break


def _fetch(ydl: YoutubeDL, address: str) -> bytes:
    """The bytes at an address; waits as long as a busy server asks for, within reason."""
    for attempt in range(_CAPTION_ATTEMPTS):
        try:
            return ydl.urlopen(address).read()
        except HTTPError as error:
            last = error
            wait = _wait_of(error)
            if error.status not in (429, 500, 502, 503) or wait > _LONGEST_WAIT:
                raise
            if attempt + 1 < _CAPTION_ATTEMPTS:
                time.sleep(wait or 0.5 * 2**attempt)
    raise last


def _wait_of(error: HTTPError) -> float:
    asked = (error.response.headers.get("Retry-After") or "").strip()
    return float(asked) if asked.isdigit() else 0.0


def _caption_outcome(refused: list[tuple[Exception, str]]) -> Outcome:
    limited = any(getattr(error, "status", None) == 429 for error, _ in refused)
    return Outcome.RATE_LIMITED if limited else Outcome.CAPTIONS_REFUSED


def classify(error: BaseException) -> tuple[Outcome, str]:
    """The outcome that an exception of yt-dlp means, and its sentence."""
    chain = list(_causes(error))
    detail = str(chain[0]).replace("ERROR: ", "").split("; please report")[0][:300]
    for cause in chain:
        if isinstance(cause, GeoRestrictedError):
            return Outcome.GEO_BLOCKED, detail
        if isinstance(cause, ContentTooShortError):
            return Outcome.TRUNCATED, detail
        if isinstance(cause, HTTPError) and (outcome := _STATUS.get(cause.status)):
            return outcome, detail
        if isinstance(cause, HTTPError) and cause.status >= 500:
            return Outcome.SERVER, detail
    said = " ".join(str(cause) for cause in chain).lower().replace("’", "'")
    for outcome, texts in _TEXTS:
        if any(text in said for text in texts):
            return outcome, detail
    if any(isinstance(cause, TransportError | OSError) for cause in chain):
        return Outcome.NETWORK, detail
    return Outcome.DOWNLOAD, detail


_STATUS = {429: Outcome.RATE_LIMITED, 403: Outcome.FORBIDDEN, 404: Outcome.NOT_FOUND, 410: Outcome.NOT_FOUND}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and everything that it says caused it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        info = getattr(current, "exc_info", None)
        waiting += [info[1] if info else None, getattr(current, "cause", None), current.__cause__]


def store_info(path: Path, info: dict[str, Any], tracks: list[CaptionTrack]) -> None:
    """Write the info object of the raw layout: gzip of one JSON object with the transcripts inside."""
    held = {**info, "transcripts": {t.code: t.text for t in tracks if t.form == "vtt"}}
    held |= {"_captions": {t.code: {"form": t.form, "text": t.text} for t in tracks if t.form != "vtt"}}
    text = json.dumps(held, ensure_ascii=False, sort_keys=True, default=str)
    filesystem.write_bytes(str(path), gzip.compress(text.encode(), mtime=0))


def _ended(video_id: str, outcome: Outcome, detail: str) -> Result:
    return Result(outcome, detail, {}, VideoText(video_id))
