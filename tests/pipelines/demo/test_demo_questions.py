"""The questions' pure functions: finding segments, building windows, blanking, counting; and the run of few steps."""

import dataclasses
import json

import numpy as np
import pytest

from model.config import TINY
from model.inference import MASK_TEXT, VideoInputs
from pipelines.demo.zero_shot import (
    Question,
    accuracies,
    find_questions,
    video_inputs,
    window_with_prompt,
    without,
)
from shards.reading.pretraining import DecodedSegment
from shards.tokens import AUDIOSPAN, MASK, PADDING


def segment(video: str, start: float, level: int = 100) -> DecodedSegment:
    times = np.zeros(0, np.float32)
    image = np.full((64, 64, 3), level, np.uint8)
    log_mel = np.arange(188 * 64, dtype=np.float32).reshape(188, 64)
    return DecodedSegment(video, start, start + 5, 1, image, log_mel, np.zeros(0, np.int32), times, times)


@pytest.fixture
def video():
    return video_inputs(TINY, [segment("a", 5.0 * i, 10 * i) for i in range(8)])


def test_questions_are_matched_to_their_segments(tmp_path):
    item = {"kind": "shape", "prompt": f"the shape is a {MASK_TEXT}", "options": ["star", "ring"], "answer": "ring"}
    asked = [{**item, "start": start, "end": start + 5} for start in (5.0, 10.0, 90.0)]
    (tmp_path / "b.truth.json").write_text(json.dumps({"id": "b", "questions": asked}))
    windows = [[segment("a", 0.0), segment("a", 5.0)], [segment("b", 4.8), segment("b", 9.8)]]
    found = list(find_questions(windows, str(tmp_path)))
    assert [(q.video, q.window, q.segment) for q in found] == [("b", 1, 0), ("b", 1, 1)]
    assert found[0].options == ("star", "ring")


def test_inputs_are_the_readers_arrays(video):
    assert video.images.shape == (8, TINY.patches, TINY.patch_values)
    assert video.audio_clips.shape == (8, 3, 60, 65)
    assert np.allclose(video.images[3], 30 / 255)
    # Eight spare columns make four gaps of two.
    assert (video.audio_clips[0, :, 0, 0] / 64).tolist() == [2, 64, 126]
    assert (video.audio_clips[..., 64] == 1).all()


def test_the_prompt_follows_the_first_sound_of_its_segment():
    window = window_with_prompt(TINY, range(8), [300, 301, MASK], prompt_segment=2)
    inside = window.subsegments // 3 == 2
    assert window.tokens[inside].tolist() == [AUDIOSPAN] * 6 + [300, 301, MASK]
    assert window.subsegments[inside].tolist() == [6] * 6 + [7] * 3
    assert (window.tokens[~inside & (window.subsegments >= 0)] == AUDIOSPAN).all()
    assert np.count_nonzero(window.tokens != PADDING) == 7 * 18 + 6 + 3


@pytest.mark.parametrize("asked", [0, 7])
def test_sounds_that_do_not_fit_are_left_out_whole(asked):
    short = dataclasses.replace(TINY, text_length=40)
    window = window_with_prompt(short, range(8), [300, MASK], asked)
    inside = window.subsegments // 3 == asked
    assert window.tokens[inside].tolist() == [AUDIOSPAN] * 6 + [300, MASK]
    assert np.count_nonzero(window.tokens == AUDIOSPAN) == 36


def test_blanking_takes_frames_or_sound_and_leaves_the_speed(video):
    assert not without(video, "frames").images.any()
    assert np.array_equal(without(video, "frames").audio_clips, video.audio_clips)
    silent = without(video, "sound")
    assert not silent.audio_clips[..., :64].any()
    assert (silent.audio_clips[..., 64] == 1).all()
    assert without(video, "nothing") is video
    assert isinstance(silent, VideoInputs)


def test_accuracies_are_counted_by_kind_and_clustered_by_video():
    def question(video, kind):
        return Question(video, kind, "", ("x", "y"), "x", 0, 0)

    asked = [question(video, kind) for video in "ab" for kind in ("colour", "colour", "sound")]
    found = accuracies(asked, [True, True, False, False, False, True])
    assert (found["colour"].right, found["colour"].asked, found["colour"].chance) == (2, 4, 0.5)
    assert (found["all"].right, found["all"].asked) == (3, 6)
    assert "shape" not in found
    # Both videos agree within themselves about colours, so their answers count as about two.
    assert found["colour"].high - found["colour"].low > found["all"].high - found["all"].low
