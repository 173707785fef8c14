"""A video is extracted whatever its container says: its windows have the pictures and the sound of their times."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest import clip, media, video
from ingest.filters import FilterConfig
from ingest.raw import CaptionTrack, RawVideo
from shards.outcomes import Outcome
from shards.tokenizer import train_tokenizer
from tests import numbered_media
from tests.numbered_media import AAC, FILMS, H264, ffmpeg, number

FILM = {film.name: film for film in FILMS}


def track(seconds):
    """An ASR track with two words a second."""
    stamp = "00:00:{:06.3f}".format
    cues = [
        f"{stamp(s)} --> {stamp(s + 0.99)} align:start position:0%\n \nword<{stamp(s + 0.5)}><c> other</c>\n"
        for s in range(seconds - 1)
    ]
    return "WEBVTT\n\n" + "\n".join(cues)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer(["word other"], 266).to_str())
    rules = FilterConfig(max_seconds=None, min_words_per_30s=None, min_language_probability=None)
    return video.VideoConfig(tokenizer=str(path), timing_model="none", filters=rules)


@pytest.fixture(scope="module")
def process(config):
    def extract(path, seconds=numbered_media.SECONDS, **info):
        return video.process(RawVideo("video", str(path), [CaptionTrack("en", "vtt", track(seconds))], info), config)

    return extract


@pytest.fixture(scope="module")
def build(once, tmp_path_factory):
    sources = once("numbered-media", numbered_media.write_sources)
    folder = tmp_path_factory.mktemp("films")

    def built(name):
        FILM[name].build(sources, folder / name)
        return folder / name

    return built


def shown(segment):
    return number(np.asarray(Image.open(io.BytesIO(segment.image))))


@pytest.mark.parametrize(
    "name",
    ["h264-aac.mp4", "without-duration.webm", "h264-aac.ts", "mpeg2-mp2.mpg", "layout-changes.ts", "clock-restarts.ts"],
)
def test_windows_have_the_picture_of_their_middle(build, process, name):
    result = process(build(name))
    assert result.outcome is Outcome.EXTRACTED, result.detail
    assert len(result.segments) == 2
    for segment in result.segments:
        assert abs(shown(segment) - 10 * (segment.start + segment.end) / 2) <= 1
    assert 11.9 < result.scores["duration"] < 12.1
    assert 11.5 < result.scores["sound_seconds"] < 12.1


def loudest_second(segment):
    """When in a window, in seconds, its spectrogram is brightest."""
    columns = np.asarray(Image.open(io.BytesIO(segment.spectrogram)).convert("L")).astype(float)
    energy = columns.sum(axis=0) if columns.shape[1] > columns.shape[0] else columns.sum(axis=1)
    return 5 * (energy.argmax() + 0.5) / len(energy)


@pytest.mark.parametrize("name", ["sound-late.mkv", "sound-late.mp4", "sound-late.ts"])
def test_late_sound_is_in_the_window_of_its_time(build, process, name):
    result = process(build(name))
    assert result.outcome is Outcome.EXTRACTED, result.detail
    clicks = [click for click in FILM[name].clicks if click < 10]
    at = [segment.start + loudest_second(segment) for segment in result.segments]
    assert at == pytest.approx(clicks, abs=0.12)


def test_slides_are_extracted_to_the_end_of_the_sound(tmp_path, process):
    path = tmp_path / "slides.mp4"
    raw = b"".join(numbered_media.picture(n).tobytes() for n in (0, 100, 200))
    source = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", "160x96", "-r", "1/10", "-i", "-")
    ffmpeg(*source, "-f", "lavfi", "-i", "sine=d=32", *H264, "-bf", 0, *AAC, path, data=raw)
    result = process(path, 32)
    assert result.outcome is Outcome.EXTRACTED, result.detail
    assert [shown(s) for s in result.segments] == [0, 0, 100, 100, 200, 200]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_cut_picture_bounds_the_windows(tmp_path, process, suffix):
    path = tmp_path / f"cut.{suffix}"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x96:r=25:d=13", "-f", "lavfi", "-i", "sine=d=24", *H264, *AAC, path)
    result = process(path, 24)
    assert result.outcome is Outcome.EXTRACTED, result.detail
    assert len(result.segments) == 2
    assert result.scores["duration"] == pytest.approx(24, abs=0.1)
    found = clip.read_clip(str(path))
    assert found.times.tolist() == [[0, 5], [5, 10]]
    assert any("the picture ends at 13.0 s" in remark for remark in found.remarks)
    with pytest.raises(clip.ClipError, match=r"lasts 13\.0 s"):
        clip.read_clip(str(path), start=14)


def test_a_recording_without_duration_can_be_asked_about(build):
    assert clip.read_clip(str(build("without-duration.webm"))).times.tolist() == [[0, 5], [5, 10]]


def test_the_sound_of_the_spoken_language_is_used_and_noted(tmp_path, process, build):
    path = tmp_path / "two.mkv"
    tones = ("-f", "lavfi", "-i", "sine=f=400:d=12", "-f", "lavfi", "-i", "sine=f=3000:d=12")
    names = ("-metadata:s:a:0", "language=ger", "-metadata:s:a:1", "language=eng", "-disposition:a:0", "default")
    ffmpeg("-i", build("h264-aac.mp4"), *tones, "-map", "0:v", "-map", 1, "-map", 2, *H264, *AAC, *names, path)
    result = process(path)
    assert result.scores["sound_track"] == "eng"
    heard = np.asarray(Image.open(io.BytesIO(result.segments[0].spectrogram)).convert("L")).astype(float)
    bands = heard.mean(axis=1 if heard.shape[0] == 64 else 0)
    assert bands.argmax() > 35
    assert "sound_track" not in process(build("h264-aac.mp4")).scores


def test_sound_far_behind_the_stated_length_is_not_decoded(tmp_path, process):
    path = tmp_path / "long.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x96:r=10:d=24", "-f", "lavfi", "-i", "sine=d=24", *H264, *AAC, path)
    result = process(path, duration=8)
    assert result.outcome is Outcome.EXTRACTED, result.detail
    assert result.scores["sound_seconds"] == 8 + media.STATED_MARGIN_SECONDS


def test_hours_of_sound_under_a_stated_minute(golden, config):
    """20 hours of silence in 330 KB: decoded up to the stated end and a margin."""
    folder = Path(__file__).parent.parent / "fixtures" / "cases" / "sound-longer-than-stated"
    words = (golden / "videos" / "gOldVidA_01.en.vtt").read_text()
    info = json.loads((folder / "longsound1.info.json").read_text())
    item = RawVideo("longsound1", str(folder / "longsound1.mkv"), [CaptionTrack("en", "vtt", words)], info)
    started = time.process_time()
    result = video.process(item, config)
    assert result.outcome is Outcome.EXTRACTED
    assert result.scores["sound_seconds"] <= info["duration"] + media.STATED_MARGIN_SECONDS
    assert time.process_time() - started < 30
