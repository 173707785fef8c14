"""A video id becomes a raw video in the published layout, through yt-dlp.

Metadata and captions come first, so that a video that the rules reject costs no media. Of the caption tracks the best
automatic and the best uploaded one are fetched, and their failure never costs the video. Every failure ends as a named
outcome; a bot check is a sign to stop, never something to get around.
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
"""Seconds that a server may ask us to wait before the answer counts as no."""

_DROPPED_KEYS = frozenset(
    (
        *("automatic_captions", "formats", "url", "http_headers", "thumbnails", "thumbnail", "playlist", "is_live"),
        *("subtitles", "protocol", "playlist_index", "extractor_key", "extractor", "requested_formats", "fragments"),
        *("requested_downloads", "requested_subtitles", "filepath", "_filename", "filename", "heatmap", "manifest_url"),
    )
)

_CAPTION_TROUBLE = frozenset(
    (Outcome.NO_CAPTIONS, Outcome.CAPTIONS_UNREADABLE, Outcome.NO_WORD_TIMES, Outcome.NO_WORDS)
)
"""Verdicts that say nothing about a video one of whose tracks was refused."""

_BEGINNINGS = {"vtt": "WEBVTT", "json3": "{"}
"""How the text of a track begins, by its form."""


class CaptionsRefusedError(OSError):
    """A server answered the request for a track with something that is no track, which says nothing about it."""


class _Log:
    """What yt-dlp prints: warnings are kept for the outcome, and what it passes over; nothing is printed."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.passed_over = ""

    def debug(self, message: str) -> None:
        """Keep the sentence with which a filter on sizes passes over a video."""
        if "min-filesize" in message or "max-filesize" in message:
            self.passed_over = message.removeprefix("[download]").strip()

    info = debug

    def warning(self, message: str, **_: object) -> None:
        """Keep a warning."""
        if len(self.warnings) < _LOGGED_WARNINGS:
            self.warnings.append(message.removeprefix("WARNING: "))

    def error(self, message: str) -> None:
        """Drop an error, which is raised as well."""


class Downloader:
    """Downloads into `folder` (raw layout); `screen` may reject a video by its text before its media are fetched,
    and `check` media that arrived.

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
        """The raw video, from what is stored or from the net; or how it ended without one."""
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
                # Whatever an extractor trips over is the end of this video and of no other.
                outcome, detail = classify(error, log.warnings)
                if "no space left" in detail.lower():
                    # The next video would meet the same, and this one has done nothing wrong.
                    raise filesystem.StorageError(f"cannot download to {self.folder!r}: no space left") from error
                return _ended(video_id, outcome, self._without_secrets(detail))

    @contextlib.contextmanager
    def _youtube(self, scratch: str, log: _Log) -> Iterator[YoutubeDL]:
        """yt-dlp with the folder, proxy and cookies of one download; what servers set in the cookies is kept."""
        self._read_secrets()
        options = self._options | {"paths": {"home": scratch, "temp": scratch}, "logger": log}
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

    def _download(
        self, ydl: YoutubeDL, log: _Log, video_id: str, stored: LayoutPaths, scratch: Path
    ) -> RawVideo | Result:
        address = f"https://www.youtube.com/watch?v={video_id}"
        found = ydl.extract_info(address, download=False, process=False)
        if found is None:
            return _ended(video_id, Outcome.SKIPPED, "yt-dlp's archive or filter passes over it")
        if ended := _unavailable(found, log):
            return _ended(video_id, *ended)
        spoken = offers.spoken_in(found, self.language)
        tracks, refused = self._captions(ydl, found, spoken)
        info = {k: v for k, v in found.items() if k not in _DROPPED_KEYS and not k.startswith("__")}
        info |= {"id": video_id, ORIGINAL_TRACKS: offers.original_tracks(found)}
        info |= {SOUND_LANGUAGE: spoken} if spoken else {}
        raw = RawVideo(video_id, None, tracks, info)
        if refused and not tracks:
            return _ended(video_id, _caption_outcome(refused), refused[0][1])
        if rejected := self.screen(raw):
            if refused and rejected.outcome in _CAPTION_TROUBLE:
                return _ended(video_id, _caption_outcome(refused), refused[0][1])
            store_info(stored.info, info, tracks)
            return rejected
        if not stored.media.is_file():
            found["formats"] = offers.chosen_formats(found, spoken)
            fetched = self._media(ydl, log, found, scratch, video_id)
            if isinstance(fetched, Result):
                return fetched
            # Media without their captions would be taken for a video that has none.
            store_info(stored.info, info, tracks)
            fetched.replace(stored.media)
        else:
            store_info(stored.info, info, tracks)
        return RawVideo(video_id, str(stored.media), tracks, info)

    def _media(self, ydl: YoutubeDL, log: _Log, found: dict, scratch: Path, video_id: str) -> Path | Result:
        """The downloaded file, or how the download ended without one."""
        ydl.process_ie_result(found, download=True)
        files = [p for p in scratch.glob(f"{video_id}.*") if p.suffix in (".mp4", ".m4v", ".mkv", ".webm")]
        if not files:
            if log.passed_over:
                return _ended(video_id, Outcome.SKIPPED, log.passed_over)
            return _ended(video_id, Outcome.TRUNCATED, "yt-dlp ended without a media file")
        return self.check(RawVideo(video_id, str(files[0]))) or files[0]

    def _captions(
        self, ydl: YoutubeDL, found: dict, spoken: str | None
    ) -> tuple[list[CaptionTrack], list[tuple[Exception, str]]]:
        """The best automatic and the best uploaded track that could be fetched, and what was refused before.

        A track that is not well formed is kept only if none after it is. Refusals do not count once a track of the same
        kind is there.
        """
        tracks, refused = [], []
        for ranked in offers.ranked_captions(found, self.language, spoken):
            fetched, refusals = _best_track(ydl, ranked)
            tracks += [fetched] if fetched else []
            refused += [] if fetched else refusals
        return tracks, refused


def _unavailable(found: dict, log: _Log) -> tuple[Outcome, str] | None:
    """The outcome of a video that has nothing to download, by its metadata alone."""
    state = found.get("live_status")
    if state == "post_live":
        return Outcome.NOT_YET, "the live stream has ended and is being processed"
    if found.get("is_live") or state == "is_live":
        return Outcome.LIVE, f"live status {state or 'is_live'}"
    if state == "is_upcoming":
        return Outcome.NOT_YET, "the video is announced"
    if offers.is_protected(found):
        return Outcome.DRM, Outcome.DRM.sentence
    if not offers.media_formats(found):
        what = "only storyboards are offered" if found.get("formats") else "no formats are offered"
        return with_warnings(Outcome.NO_FORMATS_OFFERED, f"{what}. {Outcome.NO_FORMATS_OFFERED.sentence}", log.warnings)
    return None


def _best_track(ydl: YoutubeDL, ranked: list[CaptionOffer]) -> tuple[CaptionTrack | None, list[tuple[Exception, str]]]:
    """The first track that can be fetched and read, or else the first that can be fetched; and what was refused."""
    unreadable, refused = None, []
    for offer in ranked:
        try:
            track = CaptionTrack(offer.code, offer.form, _fetch_captions(ydl, offer))
            captions.read(track.text, track.form)
            return track, refused
        except CaptionError:
            unreadable = unreadable or track
        except (YoutubeDLError, OSError) as error:
            refused.append((error, f"caption track {offer.code!r}: {str(error)[:200]}"))
            if classify(error)[0] is Outcome.RATE_LIMITED:
                # The same server would be sent the same request again.
                break
    return unreadable, refused


def _fetch_captions(ydl: YoutubeDL, offer: CaptionOffer) -> str:
    """The text of a caption track. Raises `CaptionsRefusedError` for a body that is empty, a page, or too long."""
    body = _fetch(ydl, offer.address)
    if len(body) > CAPTION_BYTES:
        raise CaptionsRefusedError(f"the answer is longer than {CAPTION_BYTES:,} bytes")
    text = decode_text(body)
    start = text.lstrip("\0\ufeff\t\n\r ")[:20]
    if not start:
        raise CaptionsRefusedError("the answer is empty, as without a PO token")
    if start.startswith("<") or not start.startswith(_BEGINNINGS.get(offer.form, "")):
        raise CaptionsRefusedError(f"the answer is not a track but begins with {start!r}, as for a blocked address")
    return text


def _fetch(ydl: YoutubeDL, address: str) -> bytes:
    """The bytes at an address; waits as long as a busy server asks for, within reason."""
    for attempt in range(_CAPTION_ATTEMPTS):
        try:
            return _read(ydl.urlopen(address))
        except HTTPError as error:
            last = error
            wait = _wait_of(error)
            if error.status not in (429, 500, 502, 503) or wait > _LONGEST_WAIT:
                raise
            if attempt + 1 < _CAPTION_ATTEMPTS:
                time.sleep(wait or 0.5 * 2**attempt)
    raise last


def _read(response) -> bytes:
    """The body of an answer, at most a byte more than a caption track may have."""
    pieces, remaining = [], CAPTION_BYTES + 1
    while remaining > 0 and (piece := response.read(min(remaining, _PIECE_BYTES))):
        pieces.append(piece)
        remaining -= len(piece)
    return b"".join(pieces)


def _wait_of(error: HTTPError) -> float:
    asked = (error.response.headers.get("Retry-After") or "").strip()
    return float(asked) if asked.isdigit() else 0.0


def _caption_outcome(refused: list[tuple[Exception, str]]) -> Outcome:
    limited = any(classify(error)[0] is Outcome.RATE_LIMITED for error, _ in refused)
    return Outcome.RATE_LIMITED if limited else Outcome.CAPTIONS_REFUSED


def store_info(path: Path, info: dict[str, Any], tracks: list[CaptionTrack]) -> None:
    """Write the info object of the raw layout: gzip of one JSON object with the transcripts inside."""
    held = {**info, "transcripts": {t.code: t.text for t in tracks if t.form == "vtt"}}
    held |= {"_captions": {t.code: {"form": t.form, "text": t.text} for t in tracks if t.form != "vtt"}}
    text = json.dumps(held, ensure_ascii=False, sort_keys=True, default=str)
    filesystem.write_bytes(str(path), gzip.compress(text.encode(), mtime=0))


def _ended(video_id: str, outcome: Outcome, detail: str) -> Result:
    return Result(outcome, detail, {}, VideoText(video_id))
