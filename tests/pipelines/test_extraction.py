"""The sandboxed process that reads captions, metadata and media."""

import dataclasses

import pytest

from ingest.config import FilterConfig, VideoConfig
from ingest.raw import CaptionTrack, RawVideo
from pipelines.extraction.decoding import Extractor
from pipelines.runner.limits import Limits
from shards.outcomes import Outcome
from shards.tokenizer import train_tokenizer

CUES = "WEBVTT\n\n00:00:01.000 --> 00:00:03.000 align:start position:0%\n \ngood<00:00:02.000><c> morning</c>\n\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(train_tokenizer(["good morning"], 266).to_str())
    rules = FilterConfig(min_words_per_30s=None, min_language_probability=None)
    return VideoConfig(tokenizer=str(path), timing_model="none", filters=rules)


@pytest.fixture
def extractor(config):
    built = Extractor(config, Limits(seconds=60))
    yield built
    built.close()


def raw(media=None, text=CUES, **info):
    return RawVideo("video", media, [CaptionTrack("en", "vtt", text)], {"duration": 60} | info)


def test_unexpected_exceptions_are_outcomes(extractor, config, golden):
    media = str(golden / "videos" / "gOldVidA_01.mp4")
    assert extractor(raw("absent.mp4")).result.outcome is Outcome.MEDIA_MISSING
    child = extractor._child.process.pid
    extractor.config = dataclasses.replace(config, tokenizer="absent.json")
    result = extractor(raw(media)).result
    assert result.outcome is Outcome.CRASHED
    assert "absent.json" in result.detail
    assert result.scores["traceback"].rstrip().splitlines()[-1].startswith("shards.")
    assert "load_tokenizer" in result.scores["traceback"]
    extractor.config = config
    assert extractor(raw("absent.mp4")).result.outcome is Outcome.MEDIA_MISSING
    assert extractor._child.process.pid == child


def test_videos_are_screened_by_their_text(extractor):
    assert extractor.screen(raw(duration=6000)).outcome is Outcome.TOO_LONG
    assert extractor.screen(raw(text="nothing")).outcome is Outcome.CAPTIONS_UNREADABLE
    assert extractor.screen(raw()) is None


def test_absurd_captions_do_not_end_the_worker(config):
    extractor = Extractor(config, Limits(seconds=60, memory_bytes=500 << 20))
    absurd = CUES + "999999999:00:01.000 --> 999999999:00:02.000 align:start position:0%\n \nx\n\n"
    try:
        for captions in ("strict", "tolerant"):
            extractor.config = dataclasses.replace(config, captions=captions)
            assert extractor(raw("absent.mp4", absurd)).result.outcome is Outcome.MEDIA_MISSING
        many = extractor(raw("absent.mp4", CUES + "00:00:05.000 --> 00:00:06.000\n" + "a " * 8_000_000)).result
        assert many.outcome is Outcome.CAPTIONS_UNREADABLE
        assert "more than 1000000 words" in many.detail
    finally:
        extractor.close()
