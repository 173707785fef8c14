"""Real yt-dlp against a server on this machine, one fault a video."""

import gzip
import hashlib
import json
import sys

import pytest
import youtube_server

from ingest.download import DownloadConfig, Downloader
from ingest.outcomes import Kind, Outcome
from ingest.raw import RawVideo, from_layout
from ingest.video import Result
from shards.segments import VideoText

QUICK = DownloadConfig(yt_dlp="--retries 1 --retry-sleep 0 --extractor-retries 0 --socket-timeout 2")


def name(fault):
    """An id of 11 characters for a fault."""
    return hashlib.sha256(fault.encode()).hexdigest()[:11]


@pytest.fixture(scope="module")
def site(golden):
    videos = golden / "videos"
    faults = [
        "fine",
        "no-captions",
        "captions-404",
        "captions-429",
        "captions-429-once",
        "fields",
        "live",
        "upcoming",
        "no-format",
        "geo",
        "status:403",
        "status:404",
        "status:429",
        "status:500",
        "info-status:429",
        "html",
        "truncated",
        "stalled",
        "text:Private video. Sign in if you've been granted access to this video",
        "text:This video has been removed by the uploader",
        "text:Sign in to confirm your age. This video may be inappropriate for some users.",
        "text:Join this channel to get access to members-only content like this video",
        "text:Sign in to confirm you’re not a bot. Use --cookies",
        "text:Video unavailable. This video is no longer available because the account has been terminated.",
        "text:Something nobody has seen before",
    ]
    built = youtube_server.Site(
        media=(videos / "gOldVidA_01.mp4").read_bytes(),
        captions=(videos / "gOldVidA_01.en.vtt").read_text(),
        info=json.loads((videos / "gOldVidA_01.info.json").read_text()),
    )
    built.faults = {name(fault): fault for fault in faults}
    assert len(built.faults) == len(faults)
    with youtube_server.serve(built) as served:
        yield served


@pytest.fixture
def download(site, tmp_path, monkeypatch):
    monkeypatch.setenv("RESERVOIR_TEST_YOUTUBE", site.address)
    if str(youtube_server.PLUGIN) not in sys.path:
        sys.path.insert(0, str(youtube_server.PLUGIN))
    return Downloader(str(tmp_path / "raw"), QUICK, "en")


def nothing_left(folder):
    return [p for p in folder.rglob("*") if p.name.startswith(".incomplete")] == []


def test_a_video_lands_in_the_published_layout(download, tmp_path, site):
    raw = download(name("fine"))
    assert isinstance(raw, RawVideo), raw
    place = tmp_path / "raw" / "youtube_dump" / name("fine")
    assert sorted(p.name for p in place.iterdir()) == [f"{name('fine')}.mp4", f"{name('fine')}.v2.info.json.gz"]
    assert (place / f"{name('fine')}.mp4").read_bytes() == site.media
    info = json.loads(gzip.decompress((place / f"{name('fine')}.v2.info.json.gz").read_bytes()))
    assert info["transcripts"] == {"en": site.captions, "en-manual": site.captions}
    assert info["title"].startswith("Simple Tomato Pasta")
    assert not {"formats", "automatic_captions", "subtitles", "thumbnails"} & info.keys()
    again = from_layout(str(tmp_path / "raw"), name("fine"))
    assert {t.code for t in again.captions} == {"en", "en-manual"}
    assert again.info["duration"] == 83
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("captions-404", Outcome.CAPTIONS_REFUSED),
        ("captions-429", Outcome.RATE_LIMITED),
        ("live", Outcome.LIVE),
        ("upcoming", Outcome.NOT_YET),
        ("no-format", Outcome.NO_FORMAT),
        ("geo", Outcome.GEO_BLOCKED),
        ("status:403", Outcome.FORBIDDEN),
        ("status:404", Outcome.FORBIDDEN),
        ("status:429", Outcome.RATE_LIMITED),
        ("status:500", Outcome.SERVER),
        ("info-status:429", Outcome.RATE_LIMITED),
        ("html", Outcome.TRUNCATED),
        ("truncated", Outcome.TRUNCATED),
        ("stalled", Outcome.NETWORK),
        ("text:Private video. Sign in if you've been granted access to this video", Outcome.PRIVATE),
        ("text:This video has been removed by the uploader", Outcome.REMOVED),
        ("text:Sign in to confirm your age. This video may be inappropriate for some users.", Outcome.AGE_RESTRICTED),
        ("text:Join this channel to get access to members-only content like this video", Outcome.MEMBERS_ONLY),
        ("text:Sign in to confirm you’re not a bot. Use --cookies", Outcome.BOT_CHECK),
        (
            "text:Video unavailable. This video is no longer available because the account has been terminated.",
            Outcome.REMOVED,
        ),
        ("text:Something nobody has seen before", Outcome.DOWNLOAD),
    ],
)
def test_every_failure_has_its_name(download, tmp_path, fault, outcome):
    ended = download(name(fault))
    assert isinstance(ended, Result)
    assert ended.outcome is outcome, ended.detail
    assert ended.detail
    assert outcome.kind in (Kind.FAILED_FINAL, Kind.FAILED_RETRYABLE)
    assert not list(tmp_path.rglob("*.mp4"))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("fault", ["no-captions", "captions-429-once", "fields"])
def test_trouble_with_captions_or_fields_does_not_cost_the_video(download, fault):
    raw = download(name(fault))
    assert isinstance(raw, RawVideo), raw
    assert raw.media
    assert {t.code for t in raw.captions} == (set() if fault == "no-captions" else {"en", "en-manual"})


def test_a_rejected_video_costs_no_media(site, tmp_path, download):
    asked = []

    def screen(raw):
        asked.append(raw)
        return Result(Outcome.TOO_LONG, "", {}, VideoText(raw.id))

    site.hits.clear()
    ended = Downloader(str(tmp_path / "other"), QUICK, "en", screen)(name("fine"))
    assert ended.outcome is Outcome.TOO_LONG
    assert len(asked[0].captions) == 2
    assert not any(path.startswith("media") for path in site.hits)
