"""Sentences of yt-dlp and YouTube, letter by letter, and the outcome that each means."""

import io
import re
from pathlib import Path

import pytest
import yt_dlp
from yt_dlp.networking import Response
from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, ProxyError, SSLError, TransportError
from yt_dlp.utils import ContentTooShortError, DownloadError, ExtractorError, GeoRestrictedError

from ingest.download.errors import classify
from shards.outcomes import Kind, Outcome

LOGIN = (
    "Use --cookies-from-browser or --cookies for the authentication. See  https://github.com/yt-dlp/yt-dlp/wiki/FAQ"
    "#how-do-i-pass-cookies-to-yt-dlp  for how to manually pass cookies. Also see  https://github.com/yt-dlp/yt-dlp/wiki/"
    "Extractors#exporting-youtube-cookies  for tips on effectively exporting YouTube cookies"
)
RATE = (
    "Video unavailable. This content isn’t available, try again later. The current session has been rate-limited by"
    " YouTube for up to an hour. It is recommended to use `-t sleep` to add a delay between video requests to avoid"
    " exceeding the rate limit. For more information, refer to  https://github.com/yt-dlp/yt-dlp/wiki/Extractors"
)

PASSES = {
    RATE: Outcome.RATE_LIMITED,
    "The page needs to be reloaded.": Outcome.RATE_LIMITED,
    "unable to download video data: HTTP Error 429: Too Many Requests": Outcome.RATE_LIMITED,
    "Unable to download API page: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)": Outcome.RATE_LIMITED,
    "All player responses are invalid. Your IP is likely being blocked by Youtube": Outcome.RATE_LIMITED,
    f"Sign in to confirm you’re not a bot. {LOGIN}": Outcome.BOT_CHECK,
    "Something. YouTube is requiring a captcha challenge before playback": Outcome.BOT_CHECK,
    "No video formats found!": Outcome.NO_FORMATS_OFFERED,
    f"Please sign in. {LOGIN}": Outcome.FORBIDDEN,
    "Video unavailable. This video is not available": Outcome.FORBIDDEN,
    "This video is not available": Outcome.FORBIDDEN,
    "unable to download video data: HTTP Error 403: Forbidden": Outcome.FORBIDDEN,
    "unable to download video data: HTTP Error 404: Not Found": Outcome.FORBIDDEN,
    "unable to download video data: HTTP Error 410: Gone": Outcome.FORBIDDEN,
    "Unable to download API page: HTTP Error 503: Service Unavailable": Outcome.SERVER,
    "An error occurred. Please try again later.": Outcome.SERVER,
    "Something went wrong. Refresh or try again later.": Outcome.SERVER,
    "Failed to extract any player response": Outcome.SERVER,
    "Incomplete data received": Outcome.SERVER,
    "Premieres in 3 hours": Outcome.NOT_YET,
    "Premiere will begin shortly": Outcome.NOT_YET,
    "This live event will begin in 2 days.": Outcome.NOT_YET,
    "This live event has ended.": Outcome.NOT_YET,
    "We're processing this video. Check back later.": Outcome.NOT_YET,
    "The channel is not currently live": Outcome.LIVE,
    "The downloaded file is empty": Outcome.TRUNCATED,
    "Did not get any data blocks": Outcome.TRUNCATED,
    "fragment 1 not found, unable to continue": Outcome.TRUNCATED,
    "content too short (expected 10 bytes and served 5)": Outcome.TRUNCATED,
    "Unable to download webpage: The read operation timed out": Outcome.NETWORK,
    "Unable to download webpage: [Errno -3] Temporary failure in name resolution": Outcome.NETWORK,
    "The download speed is below throttle limit": Outcome.NETWORK,
    "Unable to extract yt initial data": Outcome.DOWNLOAD,
}
FINAL = {
    f"Private video. Sign in if you've been granted access to this video. {LOGIN}": Outcome.PRIVATE,
    "Video unavailable. This video is private": Outcome.PRIVATE,
    f"Sign in to confirm your age. This video may be inappropriate for some users. {LOGIN}": Outcome.AGE_RESTRICTED,
    "This video is age-restricted and only available on YouTube": Outcome.AGE_RESTRICTED,
    "Join this channel to get access to members-only content like this video, and other exclusive perks.": (
        Outcome.MEMBERS_ONLY
    ),
    "This video is available to this channel's members on level: Gold (or any higher level).": Outcome.MEMBERS_ONLY,
    "This video requires payment to watch.": Outcome.PAYMENT,
    "This video is only available to Music Premium members": Outcome.PAYMENT,
    "This video is DRM protected": Outcome.DRM,
    "Video unavailable. This video is no longer available due to a copyright claim by Somebody": Outcome.COPYRIGHT,
    "Video unavailable. This video contains content from Somebody, who has blocked it on copyright grounds": (
        Outcome.COPYRIGHT
    ),
    "Video unavailable. This video contains content from Somebody, who has blocked it in your country on copyright"
    " grounds": Outcome.GEO_BLOCKED,
    "The uploader has not made this video available in your country": Outcome.GEO_BLOCKED,
    "Video unavailable": Outcome.REMOVED,
    "Video unavailable. This video has been removed by the uploader": Outcome.REMOVED,
    "This video has been removed for violating YouTube's policy on spam, deceptive practices, and scams": (
        Outcome.REMOVED
    ),
    "Video unavailable. This video is no longer available because the YouTube account associated with this video has"
    " been terminated.": Outcome.REMOVED,
    "This video isn't available anymore": Outcome.REMOVED,
    "This live stream recording is not available.": Outcome.REMOVED,
    "Incomplete YouTube ID abc. URL https://www.youtube.com/watch?v=abc looks truncated.": Outcome.NOT_FOUND,
    "Requested format is not available. Use --list-formats for a list of available formats": Outcome.NO_FORMAT,
}


@pytest.mark.parametrize(("text", "outcome"), [*PASSES.items(), *FINAL.items()])
def test_a_sentence_has_its_outcome(text, outcome):
    raised = DownloadError(f"ERROR: [youtube] gOldVidA_01: {text}")
    assert classify(raised)[0] is outcome
    assert classify(ExtractorError(text, expected=True, video_id="gOldVidA_01"))[0] is outcome
    assert (outcome.kind is Kind.FAILED_RETRYABLE) == (text in PASSES)


def http(status, reason="reason"):
    return HTTPError(Response(io.BytesIO(b""), "https://example.com", {}, status=status, reason=reason))


@pytest.mark.parametrize(
    ("cause", "outcome"),
    [
        (http(401), Outcome.FORBIDDEN),
        (http(402), Outcome.RATE_LIMITED),
        (http(403), Outcome.FORBIDDEN),
        (http(404), Outcome.NOT_FOUND),
        (http(407), Outcome.NETWORK),
        (http(429), Outcome.RATE_LIMITED),
        (http(500), Outcome.SERVER),
        (http(599), Outcome.SERVER),
        (TransportError("anything"), Outcome.NETWORK),
        (SSLError("anything"), Outcome.NETWORK),
        (ProxyError("anything"), Outcome.NETWORK),
        (IncompleteRead(5, 10), Outcome.TRUNCATED),
        (ContentTooShortError(5, 10), Outcome.TRUNCATED),
        (GeoRestrictedError("anything", countries=["DE"]), Outcome.GEO_BLOCKED),
        (OSError("anything"), Outcome.NETWORK),
    ],
)
def test_a_cause_has_its_outcome_whatever_the_sentence(cause, outcome):
    assert classify(cause)[0] is outcome
    assert classify(ExtractorError("Unable to read", cause=cause))[0] is outcome


def test_media_that_are_gone_are_no_video_that_is_gone():
    raised = DownloadError("ERROR: unable to download video data: HTTP Error 404: Not Found", (None, http(404), None))
    assert classify(raised)[0] is Outcome.FORBIDDEN


@pytest.mark.parametrize(
    ("warning", "outcome"),
    [
        ("[youtube] a: Signature solving failed: Some formats may be missing.", Outcome.NO_FORMATS_OFFERED),
        ("[youtube] a: n challenge solving failed: Some formats may be missing.", Outcome.NO_FORMATS_OFFERED),
        ("No supported JavaScript runtime could be found. Only deno is enabled", Outcome.NO_FORMATS_OFFERED),
        ("[youtube] a: Some web client https formats have been skipped as YouTube is forcing SABR streaming for this"
         " client.", Outcome.NO_FORMATS_OFFERED),
        ("[youtube] a: web client https formats require a GVS PO Token which was not provided.",
         Outcome.NO_FORMATS_OFFERED),
        ("[youtube] Unable to download API page: HTTP Error 429: Too Many Requests", Outcome.RATE_LIMITED),
        ("[youtube] a: Some tv client https formats are possibly damaged", Outcome.NO_FORMAT),
    ],
)  # fmt: skip
def test_a_missing_format_with_a_warning_is_retryable(warning, outcome):
    raised = DownloadError("ERROR: Requested format is not available. Use --list-formats")
    found, detail = classify(raised, ["Falling back on generic", warning])
    assert found is outcome
    assert (warning[:40] in detail) == (outcome is not Outcome.NO_FORMAT)
    assert len(detail) <= 400


def test_a_warning_changes_no_fact_about_the_video():
    raised = DownloadError("ERROR: Private video. Sign in")
    assert classify(raised, ["HTTP Error 429: Too Many Requests"])[0] is Outcome.PRIVATE


@pytest.mark.parametrize(
    ("file", "texts"),
    [
        ("extractor/youtube/_video.py", ("has been rate-limited by YouTube", "All player responses are invalid. Your IP",
                                         "requiring a captcha challenge", "Failed to extract any player response",
                                         "Some formats may be missing", "No supported JavaScript runtime")),
        ("extractor/common.py", ("This video is DRM protected",)),
        ("YoutubeDL.py", ("Requested format is not available", "No video formats found!", "unable to download video data",
                          "content too short")),
        ("downloader/http.py", ("Did not get any data blocks",)),
        ("downloader/fragment.py", ("The downloaded file is empty", "not found, unable to continue")),
    ],
)  # fmt: skip
def test_the_installed_yt_dlp_still_says_so(file, texts):
    source = (Path(yt_dlp.__file__).parent / file).read_text()
    plain = re.sub(r"'\s*\n\s*f?'", "", source)
    assert [text for text in texts if text not in plain] == []
