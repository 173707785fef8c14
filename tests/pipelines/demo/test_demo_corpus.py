import itertools
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.demo.corpus import CorpusError, Spec, SpecError, VideoInfo, make_corpus
from pipelines.demo.encoding import EncodingError, encode
from pipelines.demo.scenes import COLOURS

SPEC = Spec(videos=4, seed=3, shortest=3, longest=4)
SUFFIXES = {".mp4", ".en.vtt", ".en-manual.vtt", ".info.json", ".truth.json"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(str(folder), SPEC, processes=2)
    return folder


def videos(folder: Path):
    """(base path without suffix, truth) of every video that `corpus.json` lists."""
    listed = json.loads((folder / "corpus.json").read_text())["videos"]
    return [(str(folder / v["path"]), json.loads((folder / f"{v['path']}.truth.json").read_text())) for v in listed]


def contents(folder: Path):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_folder_is_in_the_raw_layout_and_listed(corpus):
    listed = json.loads((corpus / "corpus.json").read_text())
    assert [v["role"] for v in listed["videos"]] == ["train", "train", "validation", "questions"]
    for video in listed["videos"]:
        base = corpus / video["path"]
        assert {p.name.removeprefix(base.name) for p in base.parent.glob(f"{base.name}*")} == SUFFIXES
    assert listed["spec"]["seed"] == 3
    assert len(listed["held_out"]["colour_shape"]) == 6
    assert any("GPL" in tool["licence"] for tool in listed["licences_of_tools"])


def test_metadata_agree_with_the_file_and_give_nothing_away(corpus):
    for base, truth in videos(corpus):
        info = json.loads(Path(base + ".info.json").read_text())
        assert info["id"] == truth["id"] == Path(base).name
        assert info["role"] == truth["role"] == Path(base).parent.name
        with av.open(base + ".mp4") as container:
            picture, sound = container.streams.video[0], container.streams.audio[0]
            assert (picture.codec_context.name, sound.codec_context.name) == ("h264", "aac")
            assert (picture.width, picture.height) == (SPEC.width, SPEC.height)
            assert container.duration / 1e6 == pytest.approx(info["duration"], abs=0.1)
        text = " ".join([info["title"], info["description"], *info["tags"]])
        assert not any(stretch["colour"] in text for stretch in truth["stretches"])
        assert info["duration"] - truth["stretches"][-1]["end"] >= 2


def test_the_middle_frame_of_every_stretch_shows_its_colour(corpus):
    for base, truth in videos(corpus):
        with av.open(base + ".mp4") as container:
            frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        for stretch in truth["stretches"]:
            middle = (stretch["start"] + stretch["end"]) / 2
            image = next(image for time, image in frames if time >= middle).reshape(-1, 3).astype(int)
            distance = {name: np.abs(image - rgb).max(1) for name, rgb in COLOURS.items()}
            area = {name: np.mean(gap < 40) for name, gap in distance.items()}
            assert max(area, key=area.get) == stretch["colour"]
            assert area[stretch["colour"]] > 0.01


def test_words_are_loud_at_their_true_times(corpus):
    for base, truth in videos(corpus):
        with av.open(base + ".mp4") as container:
            resampler = av.AudioResampler("flt", "mono", 22050)
            sound = np.concatenate(
                [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
            )
        spoken = [np.square(_part(sound, start, end)).mean() for _, start, end in truth["words"]]
        gaps = [(a[2], b[1]) for a, b in itertools.pairwise(truth["words"]) if b[1] - a[2] > 0.3]
        assert np.median(spoken) > 2 * np.median([np.square(_part(sound, *gap)).mean() for gap in gaps])
        for stretch in truth["stretches"]:
            inside = [word for word in truth["words"] if stretch["start"] <= word[1] < stretch["end"]]
            assert [word[0] for word in inside] == stretch["text"].split()
            assert inside[-1][2] <= stretch["end"]


def test_the_uploaded_captions_are_the_sentences_of_the_truth(corpus):
    for base, truth in videos(corpus):
        bodies = Path(base + ".en-manual.vtt").read_text().split("\n\n")[1:-1]
        said = [" ".join(body.split("\n")[1:]) for body in bodies]
        assert said == [text for text, _, _ in truth["sentences"]]
        assert " ".join(said) == " ".join(word for word, _, _ in truth["words"])


def test_only_question_and_validation_videos_have_questions(corpus):
    counts = {truth["role"]: len(truth["questions"]) for _, truth in videos(corpus)}
    assert counts["train"] == 0
    assert counts["questions"] > 0


def test_one_process_and_another_folder_give_the_same_bytes(corpus, tmp_path):
    make_corpus(str(tmp_path), SPEC, processes=1)
    assert contents(tmp_path) == contents(corpus)


def test_a_second_run_makes_only_what_is_missing_stale_or_new(tmp_path):
    small, made = Spec(videos=3, shortest=1, longest=1), []
    make_corpus(str(tmp_path), small, progress=made.append)
    before = contents(tmp_path)
    (lost, _), (stale, truth), _ = videos(tmp_path)
    Path(lost + ".mp4").unlink()
    Path(stale + ".truth.json").write_text(json.dumps({**truth, "digest": "of an older version"}))
    (tmp_path / "train" / ".incomplete-0123-left.mp4").write_bytes(b"torn")
    again: list[VideoInfo] = []
    make_corpus(str(tmp_path), small, progress=again.append)
    assert [video.kept for video in again] == [False, False, True]
    assert contents(tmp_path) == before
    larger: list[VideoInfo] = []
    make_corpus(str(tmp_path), Spec(videos=4, shortest=1, longest=1), progress=larger.append)
    assert [video.kept for video in larger] == [True, True, True, False]


def test_a_folder_with_videos_of_another_corpus_is_refused(corpus):
    before = contents(corpus)
    with pytest.raises(CorpusError, match=r"contains 4 videos .* give another folder"):
        make_corpus(str(corpus), Spec(videos=4, seed=4, shortest=1, longest=1))
    with pytest.raises(CorpusError, match="contains 2 videos"):
        make_corpus(str(corpus), Spec(videos=2, seed=3, shortest=3, longest=4))
    assert contents(corpus) == before


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"videos": 0}, "videos is 0; give a value from 1"),
        ({"width": 321}, "width is 321; H.264 needs an even number"),
        ({"shortest": 9, "longest": 5}, "shortest is 9; give a value from 1 to 5"),
        ({"stretch_seconds": 1.0}, "stretch_seconds is 1.0"),
    ],
)
def test_a_setting_out_of_range_is_named(setting, sentence):
    with pytest.raises(SpecError, match=sentence):
        Spec(**setting)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--out", "{folder}/new", "--videos", "0"], 2, "videos is 0"),
        (["--out", "{folder}/new", "--processes", "0"], 2, "processes is 0; give at least 1"),
        (["--out", "{folder}/file/inside"], 1, "cannot access"),
        (["--videos", "1"], 2, "--out"),
        (["--out", "{folder}/ok", "--videos", "1", "--shortest", "1", "--longest", "1"], 0, "1 videos in"),
    ],
)
def test_the_command_ends_with_one_sentence_and_a_code(tmp_path, arguments, code, sentence):
    (tmp_path / "file").write_text("not a folder")
    command = [sys.executable, "-m", "pipelines.demo.corpus", *(a.format(folder=tmp_path) for a in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_ffmpeg_complains_about_is_passed_on(tmp_path):
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    with pytest.raises(EncodingError, match=r"ffmpeg could not write clip\.mp4: .*No such file"):
        encode(tmp_path / "missing" / "clip.mp4", frames, 10, np.zeros(6615, np.float32), 22050)


def _part(sound, start, end):
    return sound[round(start * 22050) : round(end * 22050)]
