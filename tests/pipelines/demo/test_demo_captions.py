import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.demo.captions import JITTER_LIMIT, rolling, sentences, stamp, uploaded
from pipelines.demo.voice import SpokenWord

TIME = r"(\d\d):(\d\d):(\d\d)\.(\d\d\d)"
TAG = re.compile(f"<{TIME}><c> ([^<]*)</c>")
HEADER = re.compile(f"{TIME} --> {TIME} align:start position:0%")


def seconds(groups):
    hours, minutes, whole, thousandths = map(int, groups)
    return 3600 * hours + 60 * minutes + whole + thousandths / 1000


def cues(track):
    """(start, end, body lines) of every cue."""
    assert track.startswith("WEBVTT\nKind: captions\nLanguage: en\n\n")
    result = []
    for line in track.split("\n")[4:]:
        header = HEADER.fullmatch(line)
        if header:
            result.append((seconds(header.groups()[:4]), seconds(header.groups()[4:]), []))
        else:
            result[-1][2].append(line)
    return result


def read_words(track):
    """(word, start) of the tagged lines, and of lines with a single word."""
    words = []
    for start, end, body in cues(track):
        if end - start < 0.015:
            continue
        words.append((body[1].split("<")[0], start))
        words += [(tag[5], seconds(tag.groups()[:4])) for tag in TAG.finditer(body[1])]
    return words


@st.composite
def speeches(draw):
    texts = draw(st.lists(st.from_regex(r"[A-Za-z][a-z']{0,12}[,.?]?", fullmatch=True), min_size=1, max_size=40))
    time, words = draw(st.floats(0, 4000)), []
    for text in texts:
        length, pause = draw(st.floats(0.03, 0.8)), draw(st.sampled_from([0.0, 0.0, 0.3, 4.0]))
        words.append(SpokenWord(text, round(time, 3), round(time + length, 3)))
        time += length + pause
    return words


@given(speeches(), st.integers(0, 1000))
def test_the_automatic_track_has_each_word_at_its_time(words, seed):
    heard = read_words(rolling(words, random.Random(seed)))
    assert [text for text, _ in heard] == [word.text.strip("',.?").lower() for word in words]
    assert all(a < b for (_, a), (_, b) in itertools.pairwise(heard))
    for (_, start), word in zip(heard, words, strict=True):
        assert start >= word.start - JITTER_LIMIT - 0.001
    assert all(abs(start - word.start) <= JITTER_LIMIT + 0.2 for (_, start), word in zip(heard, words, strict=True))


@given(speeches(), st.integers(0, 1000))
def test_the_automatic_track_rolls_as_the_published_ones_do(words, seed):
    track = cues(rolling(words, random.Random(seed)))
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(track))
    above = " "
    for shown, copy in zip(track[::2], track[1::2], strict=True):
        assert shown[2][0] == above
        above = re.sub("<[^>]*>", "", shown[2][1])
        assert len(above) <= 40
        assert shown[0] < shown[1] == copy[0]
        assert copy[1] - copy[0] == pytest.approx(0.01)
        assert copy[2][:2] == [above, " "]
        assert shown[2][2] == ""


def test_a_short_speech_in_full():
    words = [SpokenWord("Good", 1.0, 1.2), SpokenWord("day.", 1.2, 1.5), SpokenWord("Yes!", 5.0, 5.4)]
    still = random.Random(0)
    still.gauss = lambda mean, deviation: mean
    assert rolling(words, still) == (
        "WEBVTT\nKind: captions\nLanguage: en\n\n"
        "00:00:01.000 --> 00:00:03.500 align:start position:0%\n \ngood<00:00:01.200><c> day</c>\n\n"
        "00:00:03.500 --> 00:00:03.510 align:start position:0%\ngood day\n \n\n"
        "00:00:05.000 --> 00:00:07.400 align:start position:0%\ngood day\nyes\n\n"
        "00:00:07.400 --> 00:00:07.410 align:start position:0%\nyes\n \n\n"
    )
    assert uploaded(words) == (
        "WEBVTT\nKind: captions\nLanguage: en\n\n"
        "00:00:01.000 --> 00:00:01.500\nGood day.\n\n"
        "00:00:05.000 --> 00:00:05.400\nYes!\n\n"
    )


@given(speeches())
def test_sentences_hold_every_word_once(words):
    parts = sentences(words)
    assert " ".join(text for text, _, _ in parts) == " ".join(word.text for word in words)
    assert all(a[2] <= b[1] for a, b in itertools.pairwise(parts))


def test_stamps_roll_over():
    assert stamp(3599.9996) == "01:00:00.000"
    assert stamp(61.5) == "00:01:01.500"
