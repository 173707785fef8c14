"""Download a video by id with yt-dlp into the published raw layout.

Metadata and captions are fetched first, so that the media of rejected videos are not downloaded. The best automatic and
the best uploaded caption track are fetched. Every failure becomes an outcome; a bot check stops downloading and is
never circumvented.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yt_dlp import YoutubeDL
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.utils import YoutubeDLError

from ingest import captions
from ingest.captions import CaptionError
from ingest.config import DownloadConfig
from ingest.download import format_selection as offers
from ingest.download import secret_files
from ingest.download.errors import classify, with_warnings
from ingest.download.format_selection import CaptionOffer
from ingest.ffmpeg import ffmpeg_path
from ingest.raw import CAPTION_BYTES, CaptionTrack, LayoutPaths, RawVideo, decode_text, layout_paths
from ingest.result import Result
from ingest.transcript import ORIGINAL_TRACKS, SOUND_LANGUAGE
from ingest.video import check_media
from shards.outcomes import Outcome
from shards.records.segments import VideoText
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.storage.filesystem import TEMPORARY_PREFIX

_CAPTION_ATTEMPTS = 3
_LOGGED_WARNINGS = 20
_PIECE_BYTES = 1 << 16
_LONGEST_WAIT = 30.0
"""Maximum number of seconds of a Retry-After header; with a larger one the request fails."""

_DROPPED_KEYS = frozenset(
    (
        *("automatic_captions", "formats", "url", "http_headers", "thumbnails", "thumbnail", "playlist", "is_live"),
        *("subtitles", "protocol", "playlist_index", "extractor_key", "extractor", "requested_formats", "fragments"),
        *("requested_downloads", "requested_subtitles", "filepath", "_filename", "filename", "heatmap", "manifest_url"),
    )
)

_CAPTION_OUTCOMES = frozenset(
    (Outcome.NO_CAPTIONS, Outcome.CAPTIONS_UNREADABLE, Outcome.NO_WORD_TIMES, Outcome.NO_WORDS)
)
"""Outcomes that do not count if a caption track could not be fetched."""

_BEGINNINGS = {"vtt": "WEBVTT", "json3": "{"}
"""First characters of a track by format."""


class CaptionsRefusedError(OSError):
    """The server's response to the request for a track is not a track."""


class _Log:
    """A logger for yt-dlp that stores warnings, and messages about skipped videos, and prints nothing."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.skipped = ""

    def debug(self, message: str) -> None:
        """Store the message with which a size filter skips a video."""
        if "min-filesize" in message or "max-filesize" in message:
            self.skipped = message.removeprefix("[download]").strip()

    info = debug

    def warning(self, message: str, **_: object) -> None:
        """Store a warning."""
        if len(self.warnings) < _LOGGED_WARNINGS:
            self.warnings.append(message.removeprefix("WARNING: "))

    def error(self, message: str) -> None:
        """Ignore an error, which is also raised."""


class Downloader:
    """Downloads videos into `folder` in the raw layout.

    `screen` may reject a video by its text before its media are fetched, and `check` may reject downloaded media.
    Cookies and the proxy's address are read at the first download and stay in memory.
    """

    def __init__(
        self,
        folder: str,
        config: DownloadConfig,
        language: str,
        screen: Callable[[RawVideo], Result | None] = lambda raw: None,
        check: Callable[[RawVideo], Result | None] = check_media,
    ):
        self.folder, self.config, self.language = folder, config, language
        self.screen, self.check = screen, check
        self._options = {
            "format": config.format,
            "socket_timeout": 20,
            "retries": 3,
            "fragment_retries": 3,
            "extractor_retries": 1,
            "cachedir": False,
            "merge_output_format": "mp4",
            **config.options(),
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
        """Return the raw video, from the folder or downloaded, or the result with its outcome."""
        stored = layout_paths(self.folder, video_id)
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=self.folder) as scratch:
            log = _Log()
            try:
                with self._youtube(scratch, log) as ydl:
                    fetched = self._download(ydl, log, video_id, stored, Path(scratch))
                if isinstance(fetched, RawVideo):
                    return fetched
                return dataclasses.replace(fetched, detail=self._without_secrets(fetched.detail))
            except UserError:
                raise
            except Exception as error:
                # An error of an extractor affects this video only.
                outcome, detail = classify(error, log.warnings)
                if "no space left" in detail.lower():
                    # Not an outcome of this video: all following videos would fail, too.
                    raise filesystem.StorageError(f"cannot download to {self.folder!r}: no space left") from error
                return _ended(video_id, outcome, self._without_secrets(detail))

    @contextlib.contextmanager
    def _youtube(self, scratch: str, log: _Log) -> Iterator[YoutubeDL]:
        """Create a yt-dlp instance with the folder, proxy and cookies of one download; changed cookies are kept."""
        self._read_secrets()
        # Typed as any: yt-dlp's stub lists only some of its options.
        options: Any = self._options | {"paths": {"home": scratch, "temp": scratch}, "logger": log}
        if self._cookies is None:
            with YoutubeDL(options) as ydl:
                yield ydl
            return
        jar = io.StringIO(self._cookies)
        with YoutubeDL(options | {"cookiefile": jar}) as ydl:
            yield ydl
        # yt-dlp truncates the text and writes at the end of its reading position, so the text before that is NULs.
        self._cookies = jar.getvalue().lstrip("\0")

    def _read_secrets(self) -> None:
        """Read cookies and proxy once. Raises `StorageError`, whose message does not contain them."""
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
        """Return a message of yt-dlp without the address and password of the proxy."""
        for secret in self._hidden:
            detail = detail.replace(secret, "***")
        return detail

    def _download(
        self, ydl: YoutubeDL, log: _Log, video_id: str, stored: LayoutPaths, scratch: Path
    ) -> RawVideo | Result:
        address = f"https://www.youtube.com/watch?v={video_id}"
        # Typed as any: the result is a dict with more keys than yt-dlp's stub lists, or `None`.
        metadata: Any = ydl.extract_info(address, download=False, process=False)
        if metadata is None:
            return _ended(video_id, Outcome.SKIPPED, "yt-dlp's archive or filter skips it")
        if unavailable := _unavailable(metadata, log):
            return _ended(video_id, *unavailable)
        spoken = offers.sound_code(metadata, self.language)
        tracks, refused = self._captions(ydl, metadata, spoken)
        info = {k: v for k, v in metadata.items() if k not in _DROPPED_KEYS and not k.startswith("__")}
        info |= {"id": video_id, ORIGINAL_TRACKS: offers.original_tracks(metadata)}
        info |= {SOUND_LANGUAGE: spoken} if spoken else {}
        raw = RawVideo(video_id, None, tracks, info)
        if refused and not tracks:
            return _ended(video_id, _caption_outcome(refused), refused[0][1])
        if rejected := self.screen(raw):
            if refused and rejected.outcome in _CAPTION_OUTCOMES:
                return _ended(video_id, _caption_outcome(refused), refused[0][1])
            store_info(stored.info, info, tracks)
            return rejected
        if not stored.media.is_file():
            metadata["formats"] = offers.chosen_formats(metadata, spoken)
            fetched = self._media(ydl, log, metadata, scratch, video_id)
            if isinstance(fetched, Result):
                return fetched
            # Written first: media without this file would count as a video without captions.
            store_info(stored.info, info, tracks)
            fetched.replace(stored.media)
        else:
            store_info(stored.info, info, tracks)
        return RawVideo(video_id, str(stored.media), tracks, info)

    def _media(self, ydl: YoutubeDL, log: _Log, metadata: Any, scratch: Path, video_id: str) -> Path | Result:
        """Download the media and return the file, or the result with the outcome."""
        ydl.process_ie_result(metadata, download=True)
        files = [p for p in scratch.glob(f"{video_id}.*") if p.suffix in (".mp4", ".m4v", ".mkv", ".webm")]
        if not files:
            if log.skipped:
                return _ended(video_id, Outcome.SKIPPED, log.skipped)
            return _ended(video_id, Outcome.TRUNCATED, "yt-dlp ended without a media file")
        return self.check(RawVideo(video_id, str(files[0]))) or files[0]

    def _captions(
        self, ydl: YoutubeDL, metadata: dict[str, Any], spoken: str | None
    ) -> tuple[list[CaptionTrack], list[tuple[Exception, str]]]:
        """Fetch the best automatic and the best uploaded track; return them and the errors.

        A malformed track is returned only if no later one is valid. Errors are dropped if a track of the same kind
        could be fetched.
        """
        tracks, refused = [], []
        for ranked in offers.ranked_captions(metadata, self.language, spoken):
            fetched, refusals = _best_track(ydl, ranked)
            tracks += [fetched] if fetched else []
            refused += [] if fetched else refusals
        return tracks, refused


def _unavailable(metadata: dict[str, Any], log: _Log) -> tuple[Outcome, str] | None:
    """Return outcome and detail of a video that cannot be downloaded according to its metadata, else `None`."""
    state = metadata.get("live_status")
    if state == "post_live":
        return Outcome.NOT_YET, "the live stream has ended and is being processed"
    if metadata.get("is_live") or state == "is_live":
        return Outcome.LIVE, f"live status {state or 'is_live'}"
    if state == "is_upcoming":
        return Outcome.NOT_YET, "the video is announced"
    if offers.is_protected(metadata):
        return Outcome.DRM, Outcome.DRM.sentence
    if not offers.media_formats(metadata):
        reason = "only storyboards are offered" if metadata.get("formats") else "no formats are offered"
        detail = f"{reason}. {Outcome.NO_FORMATS_OFFERED.sentence}"
        return with_warnings(Outcome.NO_FORMATS_OFFERED, detail, log.warnings)
    return None


def _best_track(ydl: YoutubeDL, ranked: list[CaptionOffer]) -> tuple[CaptionTrack | None, list[tuple[Exception, str]]]:
    """Return the first valid track that can be fetched, or else the first malformed one; and the errors."""
    malformed, refused = None, []
    for offer in ranked:
        track = None
        try:
            track = CaptionTrack(offer.code, offer.form, _fetch_captions(ydl, offer))
            captions.read(track.text, track.form)
            return track, refused
        except CaptionError:
            malformed = malformed or track
        except (YoutubeDLError, OSError) as error:
            refused.append((error, f"caption track {offer.code!r}: {str(error)[:200]}"))
            if classify(error)[0] is Outcome.RATE_LIMITED:
                # Further requests to the same server would fail, too.
                break
    return malformed, refused


def _fetch_captions(ydl: YoutubeDL, offer: CaptionOffer) -> str:
    """Return the text of a caption track.

    Raises `CaptionsRefusedError` for a body that is empty, a page, or too long.
    """
    body = _fetch(ydl, offer.address)
    if len(body) > CAPTION_BYTES:
        raise CaptionsRefusedError(f"the response is longer than {CAPTION_BYTES:,} bytes")
    text = decode_text(body)
    start = text.lstrip("\0\ufeff\t\n\r ")[:20]
    if not start:
        raise CaptionsRefusedError("the response is empty, as without a PO token")
    if start.startswith("<") or not start.startswith(_BEGINNINGS.get(offer.form, "")):
        raise CaptionsRefusedError(f"the response is not a track but starts with {start!r}, as for a blocked address")
    return text


def _fetch(ydl: YoutubeDL, address: str) -> bytes:
    """Return the bytes at a URL; retry while the server is busy, after at most `_LONGEST_WAIT` seconds."""
    attempt = 1
    while True:
        try:
            return _read(ydl.urlopen(address))
        except HTTPError as error:
            wait = _retry_after(error)
            if error.status not in (429, 500, 502, 503) or wait > _LONGEST_WAIT or attempt == _CAPTION_ATTEMPTS:
                raise
            time.sleep(wait or 0.5 * 2 ** (attempt - 1))
            attempt += 1


def _read(response) -> bytes:
    """Return the body of a response, at most one byte more than the maximum size of a caption track."""
    pieces, remaining = [], CAPTION_BYTES + 1
    while remaining > 0 and (piece := response.read(min(remaining, _PIECE_BYTES))):
        pieces.append(piece)
        remaining -= len(piece)
    return b"".join(pieces)


def _retry_after(error: HTTPError) -> float:
    seconds = (error.response.headers.get("Retry-After") or "").strip()
    return float(seconds) if seconds.isdigit() else 0.0


def _caption_outcome(refused: list[tuple[Exception, str]]) -> Outcome:
    limited = any(classify(error)[0] is Outcome.RATE_LIMITED for error, _ in refused)
    return Outcome.RATE_LIMITED if limited else Outcome.CAPTIONS_REFUSED


def store_info(path: Path, info: dict[str, Any], tracks: list[CaptionTrack]) -> None:
    """Write the info object of the raw layout: gzip of one JSON object with the transcripts inside."""
    content = {**info, "transcripts": {t.code: t.text for t in tracks if t.form == "vtt"}}
    content |= {"_captions": {t.code: {"form": t.form, "text": t.text} for t in tracks if t.form != "vtt"}}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, default=str)
    filesystem.write_bytes(str(path), gzip.compress(text.encode(), mtime=0))


def _ended(video_id: str, outcome: Outcome, detail: str) -> Result:
    return Result(outcome, detail, {}, VideoText(video_id))
