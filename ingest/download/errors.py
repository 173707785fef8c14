"""Map errors of yt-dlp to outcomes by a table of the messages of yt-dlp and YouTube.

Facts about a video are final. Errors that may not occur on another day, from another address or with a newer yt-dlp are
retryable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yt_dlp.networking.exceptions import HTTPError, TransportError
from yt_dlp.utils import ContentTooShortError, DownloadCancelled, GeoRestrictedError

from shards.outcomes import Outcome

_DETAIL_CHARACTERS = 400

_TEXTS: tuple[tuple[Outcome, tuple[str, ...]], ...] = (
    (
        Outcome.RATE_LIMITED,
        (
            *("rate-limited by youtube", "too many requests", "http error 429", "page needs to be reloaded"),
            *("try again later. the current session", "your ip is likely being blocked", "http error 402"),
        ),
    ),
    (
        Outcome.BOT_CHECK,
        ("not a bot", "captcha challenge", "content isn't available, try again later", "unusual traffic"),
    ),
    (Outcome.DRM, ("drm protected", "unsupported drm")),
    (
        Outcome.PAYMENT,
        (
            *("requires payment", "music premium members", "youtube premium", "premium members", "purchase this video"),
            *("available to rent", "available for rent"),
        ),
    ),
    (
        Outcome.AGE_RESTRICTED,
        (
            *("confirm your age", "age-restricted", "age restricted", "inappropriate for some users"),
            *("inappropriate or offensive", "suicide or self-harm"),
        ),
    ),
    (
        Outcome.MEMBERS_ONLY,
        ("members-only", "members only", "join this channel", "channel's members", "members on level"),
    ),
    (Outcome.PRIVATE, ("private video", "video is private")),
    (
        Outcome.GEO_BLOCKED,
        (
            *("available in your country", "blocked it in your country", "geo restrict", "from your location"),
            *("available in your region", "blocked in your country"),
        ),
    ),
    (Outcome.COPYRIGHT, ("copyright claim", "copyright grounds", "copyright infringement")),
    (
        Outcome.NOT_YET,
        (
            *("premieres in", "premiere will begin", "live event will begin", "begin in a few moments", "premieres on"),
            *("processing this video", "live event has ended", "check back later", "stream is offline"),
        ),
    ),
    (Outcome.LIVE, ("is not currently live",)),
    (Outcome.FORBIDDEN, ("video is not available", "please sign in")),
    (
        Outcome.REMOVED,
        (
            *("has been removed", "been terminated", "no longer available", "isn't available anymore"),
            *("account associated", "live stream recording is not available", "video is unavailable"),
            *("removed by the uploader", "video unavailable", "violating youtube"),
        ),
    ),
    (Outcome.NO_FORMATS_OFFERED, ("no video formats found", "only images are available", "po token", "sabr")),
    (Outcome.NO_FORMAT, ("requested format is not available",)),
    (Outcome.SKIPPED, ("stopping due to --", "in the archive", "maximum number of downloads")),
    (Outcome.NOT_FOUND, ("does not exist", "incomplete youtube id", "invalid url")),
    (Outcome.FORBIDDEN, ("http error 403", "http error 401", "http error 451", "unable to open fragment")),
    (
        Outcome.SERVER,
        (
            *("http error 5", "error occurred", "something went wrong", "unknown error", "incomplete data received"),
            "failed to extract any player response",
        ),
    ),
    (
        Outcome.TRUNCATED,
        (
            *("more expected", "downloaded file is empty", "did not get any data", "incompleteread"),
            *("content too short", "unable to continue", "no media found"),
        ),
    ),
    (
        Outcome.NETWORK,
        (
            *("timed out", "connection", "resolve", "network is unreachable", "below throttle limit", "network error"),
            *("connect to proxy", "certificate verify failed", "certificate_verify_failed"),
        ),
    ),
    (Outcome.NOT_FOUND, ("http error 404", "http error 410")),
    (Outcome.NETWORK, ("unable to download",)),
)
"""Messages, in lower case, and their outcomes; the first match counts."""

_MEDIA = ("unable to download video data", "fragment")
"""How messages of yt-dlp's downloaders refer to the media; the metadata has been read by then."""

_STATUS = {
    401: Outcome.FORBIDDEN,
    402: Outcome.RATE_LIMITED,
    403: Outcome.FORBIDDEN,
    404: Outcome.NOT_FOUND,
    407: Outcome.NETWORK,
    408: Outcome.NETWORK,
    410: Outcome.NOT_FOUND,
    416: Outcome.TRUNCATED,
    429: Outcome.RATE_LIMITED,
}

_ENVIRONMENT = (
    *("formats may be missing", "formats may not work", "po token", "sabr", "javascript runtime", "challenge solv"),
    *("formats have been skipped", "only images are available", "http error 403", "http error 5", "outdated"),
)
"""Warnings that explain missing formats, which may be available to another machine or a newer yt-dlp."""

_UNCLEAR = frozenset((Outcome.DOWNLOAD, Outcome.SERVER, Outcome.NO_FORMAT, Outcome.NO_FORMATS_OFFERED))


def classify(error: BaseException, warnings: Sequence[str] = ()) -> tuple[Outcome, str]:
    """Return the outcome of an exception of yt-dlp, and its message.

    `warnings` are yt-dlp's warnings before the error: they explain missing formats and most rejected requests.
    """
    chain = list(_causes(error))
    detail = str(chain[0]).replace("ERROR: ", "").split("; please report")[0][:_DETAIL_CHARACTERS]
    return with_warnings(_outcome_of(chain), detail, warnings)


def with_warnings(outcome: Outcome, detail: str, warnings: Sequence[str]) -> tuple[Outcome, str]:
    """Return an outcome and its message, corrected by yt-dlp's warnings.

    A rate limit on any request counts; if formats are missing because of the environment, the missing format is not a
    fact about the video.
    """
    if outcome not in _UNCLEAR:
        return outcome, detail
    for warning in warnings:
        if _outcome_of_text(warning) is Outcome.RATE_LIMITED:
            return Outcome.RATE_LIMITED, f"{detail}; yt-dlp warned: {warning}"[:_DETAIL_CHARACTERS]
    if reason := next((w for w in warnings if any(text in w.lower() for text in _ENVIRONMENT)), None):
        outcome = Outcome.NO_FORMATS_OFFERED if outcome is Outcome.NO_FORMAT else outcome
        detail = f"{detail}; yt-dlp warned: {reason}"[:_DETAIL_CHARACTERS]
    return outcome, detail


def _outcome_of(chain: list[BaseException]) -> Outcome:
    message = _plain(" ".join(str(cause) for cause in chain))
    for cause in chain:
        if isinstance(cause, GeoRestrictedError):
            return Outcome.GEO_BLOCKED
        if isinstance(cause, ContentTooShortError):
            return Outcome.TRUNCATED
        if isinstance(cause, DownloadCancelled):
            return Outcome.SKIPPED
        if isinstance(cause, HTTPError):
            outcome = _STATUS.get(cause.status, Outcome.SERVER if cause.status >= 500 else None)
            if outcome is Outcome.NOT_FOUND and any(text in message for text in _MEDIA):
                return Outcome.FORBIDDEN
            if outcome is not None:
                return outcome
    if (outcome := _outcome_of_text(message)) is not None:
        return outcome
    return Outcome.NETWORK if any(isinstance(c, TransportError | OSError) for c in chain) else Outcome.DOWNLOAD


def _outcome_of_text(message: str) -> Outcome | None:
    plain = _plain(message)
    gone = "http error 404" in plain or "http error 410" in plain
    if gone and any(text in plain for text in _MEDIA):
        return Outcome.FORBIDDEN
    return next((outcome for outcome, texts in _TEXTS if any(text in plain for text in texts)), None)


def _plain(message: str) -> str:
    return message.lower().replace("’", "'")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and its causes."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        info = getattr(current, "exc_info", None)
        cause = getattr(current, "cause", None)
        waiting += [info[1] if info else None, cause if isinstance(cause, BaseException) else None, current.__cause__]
