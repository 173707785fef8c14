"""Real yt-dlp against a server on this machine, one fault a video."""

import gzip
import hashlib
import json
import sys
from pathlib import Path

import pytest
import youtube_server

from ingest.download.youtube import DownloadConfig, Downloader
from ingest.raw import CAPTION_BYTES, RawVideo, from_layout
from ingest.transcript import ranked_tracks
from ingest.video import Result
from shards.outcomes import Kind, Outcome
from shards.records.segments import VideoText

CASES = Path(__file__).parent.parent / "fixtures" / "cases"
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
        "is_upcoming",
        "post_live",
        "captions-empty",
        "captions-page",
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
        ("is_upcoming", Outcome.NOT_YET),
        ("post_live", Outcome.NOT_YET),
        ("captions-empty", Outcome.CAPTIONS_REFUSED),
        ("captions-page", Outcome.CAPTIONS_REFUSED),
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


@pytest.fixture
def case(site, tmp_path, download):
    """Download the video that the info dict of a case describes, with other fields; and the paths that were requested."""

    def fetch(name_of_case, language="en", screen=lambda raw: None, bodies=(), **fields):
        info = json.loads((CASES / name_of_case / "info.json").read_text()) | fields
        named = name(json.dumps([info, language, dict(bodies) != {}], default=str))
        site.infos[named] = info
        site.bodies = {
            f"media/{f['url'].rpartition('/')[2]}": site.media for f in info["formats"] if "media" in f["url"]
        }
        site.bodies |= dict(bodies)
        site.hits.clear()
        fetched = Downloader(str(tmp_path / "raw"), QUICK, language, screen)(named)
        return fetched, [path for path in site.hits if not path.startswith("info/")]

    return fetch


def test_a_portrait_video_is_chosen_by_its_short_side(case):
    raw, paths = case("short-in-portrait")
    assert isinstance(raw, RawVideo), raw
    assert [path for path in paths if path.startswith("media")] == ["media/18"]


def test_storyboards_alone_say_nothing_about_the_video(case, tmp_path):
    for formats in ({}, {"formats": []}):
        ended, paths = case("only-storyboards", **formats)
        assert ended.outcome is Outcome.NO_FORMATS_OFFERED
        assert ended.outcome.kind is Kind.FAILED_RETRYABLE
        assert "JavaScript runtime" in ended.detail
        assert not paths, "captions of a video without media were fetched"
        assert not list(tmp_path.rglob("*.json.gz"))


def formats_of(*languages, preferences=None):
    """Formats like those of a dubbed video, one for each language; the first is the original."""
    preferences = preferences or [10, *([-1] * len(languages))]
    return [
        {"format_id": f"18-{i}", "url": f"{{base}}/media/{code}.mp4", "ext": "mp4", "height": 360, "width": 640}
        | {"vcodec": "avc1", "acodec": "mp4a", "language": code, "language_preference": preferences[i]}
        for i, code in enumerate(languages)
    ]


@pytest.mark.parametrize(
    ("language", "offered", "sound", "kind"),
    [
        ("en", ["ja", "en-US"], "en-US", "asr-original"),
        ("en", ["en-US", "ja"], "en-US", "asr-original"),
        ("en_GB", ["ja", "ENG"], "ENG", "asr-original"),
        ("eng", ["jpn", "en_US"], "en_US", "asr-original"),
        ("en", ["ja"], "ja", "asr-translated"),
        ("en", ["ja", "de"], "ja", "asr-translated"),
        ("ja", ["ja", "en-US"], "ja", "asr-original"),
        ("ja", ["en-US", "ja"], "ja", "asr-original"),
    ],
)
def test_words_and_sound_are_of_one_language(case, language, offered, sound, kind):
    raw, paths = case("auto-dubbed", language, formats=formats_of(*offered))
    assert isinstance(raw, RawVideo), raw
    assert [path for path in paths if path.startswith("media")] == [f"media/{sound}"]
    assert raw.info["_sound_language"] == sound
    [(found, track)] = ranked_tracks(raw, language)
    assert (found.value, track.code) == (kind, f"{'ja' if language == 'ja' else 'en'}-orig")
    again = from_layout(str(Path(raw.media).parents[2]), raw.id)
    assert ranked_tracks(again, language)[0][0] is found


def test_audio_description_is_not_the_sound(case):
    formats = formats_of("ja", "en-desc", "en", preferences=[10, -10, -1])
    assert case("auto-dubbed", formats=formats)[1] == ["asr/en", "media/en"]
    formats = formats_of("ja", "en-desc", preferences=[10, -10])
    assert case("auto-dubbed", formats=formats)[1] == ["asr/en", "media/ja"]


def test_only_the_tracks_that_are_used_are_fetched(case):
    tracks = {code: [{"ext": "vtt", "url": f"{{base}}/asr/{code}.vtt"}] for code in ("en-orig", "en", "en-GB", "de")}
    uploaded = {code: [{"ext": "vtt", "url": f"{{base}}/uploaded/{code}.vtt"}] for code in ("en", "en-GB", "fr")}
    _, paths = case("short-in-portrait", automatic_captions=tracks, subtitles=uploaded)
    assert paths == ["asr/en-orig", "uploaded/en", "media/18"]


def test_an_unreadable_track_is_followed_by_the_next(case, site):
    tracks = {code: [{"ext": "vtt", "url": f"{{base}}/asr/{code}.vtt"}] for code in ("en-orig", "en")}
    for body in (b"", b"<!DOCTYPE html><html>Sorry</html>", b"WEBVTT\n\nno times in here"):
        raw, _ = case("short-in-portrait", automatic_captions=tracks, bodies={"asr/en-orig.vtt": body}.items())
        assert [track.code for track in raw.captions] == ["en"], body


def test_a_translation_does_not_replace_a_refused_original(case):
    formats = formats_of("en")
    tracks = {
        "en-orig": [{"ext": "vtt", "url": "{base}/asr/orig.vtt"}],
        "en": [{"ext": "vtt", "url": "{base}/asr/en.vtt?lang=ja&tlang=en"}],
    }
    ended, paths = case("auto-dubbed", formats=formats, automatic_captions=tracks, bodies={"asr/orig.vtt": b""}.items())
    assert ended.outcome is Outcome.CAPTIONS_REFUSED
    assert paths == ["asr/orig"]


def test_a_refused_track_is_not_a_missing_track(case, site):
    """The uploaded track arrives, and without the refused one the video would be rejected for good."""
    uploaded = {"en": [{"ext": "vtt", "url": "{base}/uploaded/en.vtt"}]}

    def screen(raw):
        assert [track.code for track in raw.captions] == ["en-manual"]
        return Result(Outcome.NO_WORD_TIMES, "", {}, VideoText(raw.id))

    bodies = {"asr/en.vtt": b""}.items()
    ended, _ = case("empty-caption-answer", subtitles=uploaded, bodies=bodies, screen=screen)
    assert ended.outcome is Outcome.CAPTIONS_REFUSED


@pytest.mark.parametrize(
    "body", [b"", b"\n\n", b"\0\0", b"{}", (CASES / "empty-caption-answer" / "body.html").read_bytes()]
)
def test_an_answer_that_is_no_track_says_nothing_about_the_video(case, tmp_path, body):
    ended, _ = case("empty-caption-answer", bodies={"asr/en.vtt": body}.items())
    assert ended.outcome is Outcome.CAPTIONS_REFUSED
    assert ended.outcome.kind is Kind.FAILED_RETRYABLE
    assert not list(tmp_path.rglob("*.json.gz")), "the metadata are not stored as if they were complete"


def test_a_body_of_captions_is_read_within_a_limit(case):
    body = b"WEBVTT\n\n" + b"x" * CAPTION_BYTES
    ended, _ = case("empty-caption-answer", bodies={"asr/en.vtt": body}.items())
    assert ended.outcome is Outcome.CAPTIONS_REFUSED
    assert "longer than" in ended.detail


def test_protected_formats_are_a_fact_about_the_video(case):
    formats = [{**formats_of("en")[0], "has_drm": True}]
    ended, paths = case("auto-dubbed", formats=formats)
    assert ended.outcome is Outcome.DRM
    assert not paths


def test_media_without_metadata_are_downloaded_again(case, tmp_path):
    raw, _ = case("short-in-portrait")
    info = next(tmp_path.rglob("*.json.gz"))
    assert info.stat().st_mtime_ns <= Path(raw.media).stat().st_ctime_ns


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
