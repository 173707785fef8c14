"""TVQA questions and clips: golden records, the time grid, sound at both rates, subtitles, and what cannot be used."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ingest.questions.clips import (
    ROWS,
    Span,
    Subtitle,
    parse_srt,
    plain,
    sample_rate,
    share_out,
    spectrograms,
    time_grid,
)
from ingest.questions.question import QuestionError, QuestionOutcome
from ingest.questions.tvqa import Clip, TvqaPreparation, moment, nearest, prepare, read_clip, where
from shards.records import tfrecord
from shards.records.tvqa import parse_record
from shards.tokenizer import load_tokenizer

RELEASED = TvqaPreparation.published()


@pytest.fixture(scope="module")
def tokenizer(published_tokenizer):
    return load_tokenizer(published_tokenizer)


@pytest.fixture(scope="module")
def folder(golden):
    return str(golden / "finetune" / "tvqa")


@pytest.fixture(scope="module")
def lines(folder):
    text = (Path(folder) / "tvqa_qa_release" / "tvqa_train.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


def test_records_equal_the_golden_ones(golden, parity, folder, lines, tokenizer):
    expected = json.loads((golden / "l_finetune.json").read_text())["tvqa/train"]["non_bytes_values"]
    with (golden / "finetune" / "records" / "tvqa" / "train000of001.tfrecord").open("rb") as file:
        pictures = {r.id: r for r in (parse_record(payload) for _, payload in tfrecord.scan(file, "golden"))}
    assert len(pictures) == 2
    for line, values in zip(lines, expected, strict=True):
        record = prepare(line, read_clip(folder, line, RELEASED.rate), tokenizer, config=RELEASED)
        assert record.id == values["id"]
        assert record.query.tolist() == values["qa_query"]
        assert [option.tolist() for option in record.options] == [values[f"qa_choice_{i}"] for i in range(5)]
        assert ([record.label], [len(record.segments)]) == (values["qa_label"], values["num_frames"])
        assert [s.subtitle.tolist() for s in record.segments] == [
            values[f"c{i:02d}/sub"] for i in range(len(record.segments))
        ]
        assert record.magic == pytest.approx(values["magic_number"][0], rel=1e-5)
        if record.id not in pictures:
            continue
        for ours, theirs in zip(record.segments, pictures[record.id].segments, strict=True):
            image = np.abs(pixels(ours.image) - pixels(theirs.image)).max()
            sound = np.abs(pixels(ours.spectrogram) - pixels(theirs.spectrogram))
            parity.record("finetune/records/tvqa", "pictures", image, "grey levels")
            parity.record("finetune/records/tvqa", "spectrograms: mean", sound.mean(), "grey levels")
            assert image <= 1
            assert sound.mean() < 0.05


@pytest.mark.parametrize(
    ("times", "last", "starts", "frames", "text"),
    [
        ((20, 26.5), 184, (7.0, 35.0), (29, 43, 57, 71, 85, 99, 113), "39 to 59"),
        ((1, 4), 184, (-4.333, 23.667), (1, 9, 23, 37, 51, 65, 79), "16 to 25"),
        ((0, 61), 184, (14.333, 42.333), (51, 65, 79, 93, 107, 121, 135), "-43 to 142"),
        ((2, 3), 30, (-4.333, 9.667), (1, 9, 23, 30), "33 to 39"),
    ],
)
def test_the_time_grid_of_the_specification(times, last, starts, frames, text):
    duration = (last - 1) / 3
    spans = time_grid(*times, 0.0, duration)
    assert (spans[0].start, spans[-1].start) == pytest.approx(starts, abs=1e-3)
    assert tuple(min(max(round(3 * span.middle) + 1, 1), last) for span in spans) == frames
    assert where(*map(float, times), spans, TvqaPreparation()) == text


def test_the_stated_moment_can_be_kept_inside():
    spans = time_grid(0, 61, 0, 61)
    assert where(0, 61, spans, TvqaPreparation(clamp_moment=True)) == "0 to 100"


@given(st.floats(0, 100), st.floats(0, 100), st.floats(1, 100), st.integers(1, 7))
def test_segments_follow_each_other(start, end, duration, most):
    start, end = sorted((min(start, duration), min(end, duration)))
    spans = time_grid(start, end, 0.0, duration, most)
    assert 1 <= len(spans) <= most
    for a, b in itertools.pairwise(spans):
        assert a.end == pytest.approx(b.start, abs=1e-5)


@pytest.mark.parametrize("rate", ["true", "published"])
def test_a_tone_is_where_its_rate_puts_it(rate):
    """A tone of 3 kHz: at its own rate in its own band, at the published one 2.5 % lower; silence outside the clip."""
    count = 20 * sample_rate(rate)
    tone = 8000 * np.sin(2 * np.pi * 3000 * np.arange(count) / sample_rate(rate))
    (early, inside), magic = spectrograms(tone.astype(np.int16), [Span(-4.667, 0), Span(5, 9.667)], rate)
    assert pixels(inside).shape == (ROWS, 65)
    assert pixels(inside)[90, :64].argmax() == {"true": 39, "published": 38}[rate]
    assert pixels(early)[20:160, :64].max() <= 2
    assert abs(pixels(inside)[:, 64].mean() - min(magic, 255)) < 6


def test_silence_is_a_sound(tokenizer):
    (one,), magic = spectrograms(np.zeros(0, np.int16), [Span(0, 4.667)], "true")
    assert magic == 255
    assert pixels(one)[:, :60].max() == 0


SRT = """1
00:00:01,000 --> 00:00:02,500
Hello,
Penny.

2
00:00:05,000 --> 00:00:05,900 X1:40
It\u2019s a caf\u00c3\u00a9.

x
not a time

3
00:01:00.250 --> nonsense
lost
"""


def test_subtitles_are_read_shared_out_and_made_plain():
    found = parse_srt("\ufeff" + SRT.replace("\n", "\r\n"))
    assert found == [Subtitle(1.0, 2.5, "Hello,\nPenny."), Subtitle(5.0, 5.9, "It\u2019s a caf\u00c3\u00a9.")]
    assert share_out(found, [Span(0, 4.667), Span(4.667, 9.333)]) == ["Hello, Penny.", "It's a cafe."]
    assert share_out(found, [Span(20, 24.667)]) == [""]
    assert plain("a\nb") == "a b"


@given(st.text(max_size=300))
def test_any_text_is_read_as_subtitles(text):
    assert all(subtitle.start >= 0 for subtitle in parse_srt(text))


@pytest.mark.parametrize(
    ("change", "outcome", "sentence"),
    [
        ({"show_name": "Seinfeld"}, QuestionOutcome.UNKNOWN_SHOW, "'Seinfeld' is not one of the series"),
        ({"show_name": "Castle"}, QuestionOutcome.FRAMES_MISSING, "there are no frames in .*castle_frames"),
        ({"ts": "4 to 5"}, QuestionOutcome.BAD_LINE, "ts is '4 to 5', not START-END"),
        ({"ts": "500-600"}, QuestionOutcome.TIMES_OUTSIDE, "the clip ends after 39.7 seconds"),
        ({"answer_idx": 5}, QuestionOutcome.LABEL_OUT_OF_RANGE, "answer_idx is 5"),
        ({"answer_idx": None}, QuestionOutcome.LABEL_MISSING, "there is no 'answer_idx'"),
        ({"a3": None}, QuestionOutcome.BAD_LINE, "the field 'a3' is 'None' or missing"),
    ],
)
def test_a_line_that_cannot_be_used_says_why(folder, lines, tokenizer, change, outcome, sentence):
    line = lines[0] | change
    with pytest.raises(QuestionError, match=sentence) as raised:
        prepare(line, read_clip(folder, line, "true"), tokenizer)
    assert raised.value.outcome is outcome


def test_a_test_question_has_no_label(folder, lines, tokenizer):
    line = {name: value for name, value in lines[3].items() if name != "answer_idx"}
    assert prepare(line, read_clip(folder, line, "true"), tokenizer, labelled=False).label == 0


def test_missing_and_damaged_files_are_named(folder, lines, tmp_path):
    line = lines[0]
    frames = tmp_path / "tvqa_frames" / "frames_hq" / "bbt_frames" / line["vid_name"]
    frames.mkdir(parents=True)
    (frames / "00001.jpg").write_bytes(b"x")
    for path, outcome in (
        (tmp_path / "tvqa_subtitles" / f"{line['vid_name']}.srt", QuestionOutcome.SUBTITLES_MISSING),
        (
            tmp_path / "tvqa_frames" / "audios" / "bbt_new" / "bbt_audios" / f"{line['vid_name']}.mp3",
            QuestionOutcome.SOUND_MISSING,
        ),
    ):
        with pytest.raises(QuestionError) as raised:
            read_clip(str(tmp_path), line, "true")
        assert raised.value.outcome is outcome
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not media")
    with pytest.raises(QuestionError) as raised:
        read_clip(str(tmp_path), line, "true")
    assert raised.value.outcome is QuestionOutcome.SOUND_UNREADABLE


def test_a_missing_frame_is_replaced_by_the_nearest(folder, lines, tokenizer):
    line = lines[3]
    clip = read_clip(folder, line, "true")
    fewer = Clip({n: p for n, p in clip.frames.items() if n != 20}, clip.samples, clip.subtitles)
    whole, replaced = (prepare(line, one, tokenizer) for one in (clip, fewer))
    assert len(replaced.segments) == len(whole.segments)
    assert replaced.segments[1].image == whole.segments[0].image
    assert [nearest([1, 5, 9], wanted) for wanted in (0, 3, 4, 12)] == [1, 1, 5, 9]


def test_moments_without_times_are_the_whole_clip():
    assert moment({"ts": "nan-nan"}, 30.0) == (0.0, 30.0)
    assert moment({"ts": "-2.5-99"}, 30.0) == (0.0, 30.0)
