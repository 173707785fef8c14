"""What is asked about is what the published inference code would have seen and heard."""

import subprocess

import numpy as np
import pytest

from ingest import captions, clip, media, raw, spectrogram
from ingest.ffmpeg import ffmpeg_path


@pytest.fixture(scope="module")
def film(golden):
    return str(golden / "videos" / "gOldVidA_01.mp4")


@pytest.fixture(scope="module")
def whole(film):
    return clip.read_clip(film, words=clip.track_words(raw.from_folder(film)))


def test_segments_follow_the_published_rule(whole):
    # 83 s less the margin of one second: the last segment ends before 82.
    assert whole.times.tolist() == [[5.0 * i, 5.0 * i + 5] for i in range(16)]
    assert len(whole.frames) == len(whole.log_mels) == 16


def test_frames_are_the_exact_ones_without_black_bars(film, whole):
    frames, _ = media.read(film, [2.5 + 5 * i for i in range(16)])
    y1, y2, x1, x2 = media.black_bars(frames)
    for ours, frame in zip(whole.frames, frames, strict=True):
        np.testing.assert_array_equal(ours, frame[y1:y2, x1:x2])


def test_clips_are_the_columns_of_the_spectrogram_and_the_speed(film, whole):
    _, waveform = media.read(film, [])
    piece = waveform[(22_050 * 10) : (22_050 * 15)] / np.abs(waveform).max()
    log_mel = spectrogram.log_mel(piece)
    clips = whole.audio_clips()
    assert clips.shape == (16, 3, 60, 65)
    for number, first in enumerate((2, 64, 126)):
        np.testing.assert_array_equal(clips[2, number, :, :64], log_mel[:, first : first + 60].T)
    assert (clips[..., 64] == 1).all()


def test_patches_are_the_reader_s(whole):
    patches = whole.patches((12, 20))
    assert patches.shape == (16, 240, 768)
    picture = patches[0].reshape(12, 20, 16, 16, 3).transpose(0, 2, 1, 3, 4).reshape(192, 320, 3)
    frame = whole.frames[0]
    scale = min(192 / frame.shape[0], 320 / frame.shape[1])
    height, width = int(frame.shape[0] * scale), int(frame.shape[1] * scale)
    assert not picture[height:].any()
    assert not picture[:, width:].any()
    assert abs(picture[:height, :width].mean() - frame.mean() / 255) < 0.01


def test_words_belong_to_the_segment_of_their_middle(whole, golden):
    spoken = captions.clean(captions.read((golden / "videos" / "gOldVidA_01.en.vtt").read_text(), "vtt").words)
    assert sum(len(text.split()) for text in whole.texts) <= sum(len(w.text.split()) for w in spoken)
    third = [w.text for w in spoken if 10 <= (w.start + w.end) / 2 < 15]
    assert whole.texts[2] == " ".join(third)


def test_a_part_of_a_video(film, whole):
    part = clip.read_clip(film, start=10, end=26)
    np.testing.assert_array_equal(part.times, whole.times[2:5])
    np.testing.assert_array_equal(part.log_mels, whole.log_mels[2:5])


def test_short_intervals_are_centred_and_long_ones_cut(film):
    short, long = clip.read_intervals(film, [(10, 12), (20, 40)]).log_mels
    assert not short[:, :40].any()
    assert short[:, 80:110].any()
    np.testing.assert_array_equal(long, clip.read_intervals(film, [(27.5, 32.5)]).log_mels[0])


def made(tmp_path, name, *arguments):
    path = tmp_path / name
    subprocess.run([ffmpeg_path(), "-nostdin", "-loglevel", "error", *arguments, str(path)], check=True)
    return str(path)


PICTURE = ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10:duration=3"]


def test_a_video_shorter_than_a_segment_is_filled_up_and_says_so(tmp_path):
    path = made(tmp_path, "short.mp4", *PICTURE, "-f", "lavfi", "-i", "sine=duration=3")
    found = clip.read_clip(path)
    assert found.times.tolist()[0][0] == 0
    assert found.audio_clips().shape == (1, 3, 60, 65)
    assert "filled up with silence" in found.remarks[0]


def test_a_silent_video_is_answered_from_its_frames(tmp_path):
    found = clip.read_clip(made(tmp_path, "mute.mp4", *PICTURE))
    assert found.log_mels is None
    assert found.audio_clips() is None
    assert any("no sound" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"start": -1}, "is not a valid part"),
        ({"start": 5, "end": 5}, "is not a valid part"),
        ({"start": 500}, "lasts 83"),
    ],
)
def test_bad_requests(film, arguments, complaint):
    with pytest.raises(clip.ClipError, match=complaint):
        clip.read_clip(film, **arguments)


@pytest.mark.parametrize(
    ("name", "complaint"), [("words.doc", "no .vtt"), ("nowhere.vtt", "cannot be read"), ("empty.vtt", "no cue")]
)
def test_bad_captions(tmp_path, name, complaint):
    (tmp_path / "empty.vtt").write_text("WEBVTT")
    with pytest.raises(clip.ClipError, match=complaint):
        clip.file_words(str(tmp_path / name))


def test_files_that_are_no_videos(tmp_path):
    sound = made(tmp_path, "sound.m4a", "-f", "lavfi", "-i", "sine=duration=6")
    with pytest.raises(clip.ClipError, match="no picture"):
        clip.read_clip(sound)
    with pytest.raises(clip.ClipError, match="no media file"):
        clip.read_clip(str(tmp_path / "none.mp4"))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(clip.ClipError, match="cannot be opened"):
        clip.read_clip(str(broken))
