import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import captions
from ingest.captions import CaptionError, Word, clean, parse_vtt, read, seconds

NAMES = ("gOldVidA_01", "gOldVidB_01", "gOldVidC_01")
ROLLING = "00:00:01.000 --> 00:00:03.000 align:start position:0%\n"


def strict(text, word_times):
    try:
        words = parse_vtt(text, word_times)
    except CaptionError:
        return "raises"
    return None if words is None else [(w.text, w.start, w.end) for w in words]


def expected(case):
    if "raises" in case:
        return "raises"
    return None if case["result"] is None else [tuple(word) for word in case["result"]]


def assert_same(ours, theirs, parity, file):
    if not isinstance(theirs, list):
        assert ours == theirs
        return
    assert [w[0] for w in ours] == [w[0] for w in theirs]
    error = max(
        (abs(a - b) for o, t in zip(ours, theirs, strict=True) for a, b in zip(o[1:], t[1:], strict=True)), default=0
    )
    parity.record(file, "word times", error, "s")
    assert error < 1e-9


@pytest.mark.parametrize("name", [f"{n}.{kind}.vtt" for n in NAMES for kind in ("en", "en-manual")])
def test_strict_reading_of_whole_tracks(golden, parity, name):
    case = json.loads((golden / "a_vtt_files.json").read_text())[name]
    text = (golden / "videos" / name).read_text()
    for key, word_times in (("read_vtt_text", False), ("read_vtt_text_skip", True)):
        assert_same(strict(text, word_times), expected(case[key]), parity, "a_vtt_files.json")


def test_strict_reading_of_odd_inputs(golden, parity):
    cases = json.loads((golden / "a_vtt_odd.json").read_text())
    for case in cases:
        for key, word_times in (("read_vtt_text", False), ("read_vtt_text_skip_if_no_timing_info", True)):
            assert_same(strict(case["text"], word_times), expected(case[key]), parity, "a_vtt_odd.json")


def test_time_stamps(golden):
    for stamp, case in json.loads((golden / "a_ts.json").read_text())["ts_to_sec"].items():
        if "raises" in case:
            with pytest.raises(CaptionError):
                seconds(stamp)
        else:
            assert seconds(stamp) == case["result"]


def test_cleaning(golden):
    case = json.loads((golden / "b_clean.json").read_text())["clean_subtitle_tuples"]
    kept = clean([Word(*word) for word in case["input"]])
    assert [{"word": w.text, "start": w.start, "end": w.end} for w in kept] == case["result"]


def test_reference_cue():
    text = (
        f"WEBVTT\n\n{ROLLING} \ngood<00:00:01.400><c> morning</c><00:00:01.900><c> all</c>\n\n"
        "00:00:03.000 --> 00:00:03.010 align:start position:0%\ngood morning all\n \n\n"
        "00:00:03.010 --> 00:00:04.200 align:start position:0%\ngood morning all\nfriends\n\n"
    )
    expected_words = [
        Word("good", 1.0, 1.4),
        Word("morning", 1.4, 1.9),
        Word("all", 1.9, 3.0),
        Word("friends", 3.01, 4.2),
    ]
    assert parse_vtt(text) == expected_words
    assert read(text, "vtt").words == expected_words


def test_only_strict_cues_swallow_the_next_identifier():
    text = "WEBVTT\n\n1\n00:00:17.683 --> 00:00:19.285\none two three four five six seven\n\n2\n00:00:20.000 --> 00:00:21.000\nx\n"
    strict_words = parse_vtt(text, word_times=False)
    assert [w.text for w in strict_words[:8]] == ["one", "two", "three", "four", "five", "six", "seven", "2"]
    assert strict_words[0].end - strict_words[0].start == pytest.approx(0.20025)
    assert [w.text for w in read(text, "vtt").words] == ["one", "two", "three", "four", "five", "six", "seven", "x"]


@pytest.mark.parametrize("name", NAMES)
def test_tolerant_reading_agrees_with_strict_on_well_formed_asr(golden, name):
    text = (golden / "videos" / f"{name}.en.vtt").read_text()
    transcript = read(text, "vtt")
    assert transcript.timed
    assert [w.text for w in transcript.words] == [w.text for w in parse_vtt(text)]
    for ours, theirs in zip(transcript.words, parse_vtt(text), strict=True):
        assert (ours.start, ours.end) == pytest.approx((theirs.start, theirs.end))


def test_tolerant_reading_of_what_strict_refuses():
    short = "\ufeffWEBVTT\n\n00:01.000 --> 00:03.000\nbravo &amp; carol\n"
    assert [w.text for w in read(short, "vtt").words] == ["bravo", "&", "carol"]
    srt = "1\n00:00:01,000 --> 00:00:03,000\n<i>hello</i> there\n\n2\n00:00:04,000 --> 00:00:05,500\nyou\n"
    assert read(srt, "srt").words == [Word("hello", 1, 2), Word("there", 2, 3), Word("you", 4, 5.5)]
    json3 = json.dumps(
        {
            "events": [
                {
                    "tStartMs": 1000,
                    "dDurationMs": 2000,
                    "segs": [{"utf8": "hello"}, {"utf8": " there", "tOffsetMs": 500}],
                }
            ]
        }
    )
    assert read(json3, "json3") == captions.Transcript([Word("hello", 1.0, 1.5), Word("there", 1.5, 3.0)], timed=True)


def test_overlapping_cues_are_put_in_order():
    text = (
        "WEBVTT\n\n00:05.000 --> 00:09.000\nlate\n\n00:01.000 --> 00:06.000\nearly\n\n00:08.000 --> 00:07.000\nback\n"
    )
    words = read(text, "vtt").words
    assert [w.text for w in words] == ["early", "late", "back"]
    assert all(w.start <= w.end for w in words)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))


@pytest.mark.parametrize("form", ["vtt", "srt", "json3"])
@pytest.mark.parametrize("text", ["", "no captions here", '{"events": 3}', "[1, 2]", "\x00\x01"])
def test_what_is_no_track_is_refused(form, text):
    with pytest.raises(CaptionError):
        read(text, form)


stamps = st.builds(
    lambda h, m, s, ms: f"{h:02d}:{m:02d}:{s:02d}.{ms:03d}",
    st.integers(0, 30),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 999),
)
lines = st.one_of(
    st.text(max_size=40),
    st.builds(lambda a, b: f"{a} --> {b} align:start position:0%", stamps, stamps),
    st.builds(lambda a, t: f"word<{t}><c> {a}</c>", st.text(max_size=8), stamps),
    st.sampled_from(["WEBVTT", "", " ", "<c>", "&gt;&gt;", "<c.colorE5E5E5>", "1"]),
)


@given(st.lists(lines, max_size=30))
def test_any_text_gives_words_or_the_typed_error(body):
    text = "\n".join(body)
    for parse in (lambda: parse_vtt(text), lambda: parse_vtt(text, False), lambda: read(text, "vtt").words):
        try:
            words = parse()
        except CaptionError:
            continue
        assert words is None or all(isinstance(w, Word) and w.text for w in words)


@given(st.lists(st.from_regex(r"[a-z']{1,10}", fullmatch=True), min_size=1, max_size=40), st.integers(0, 3600_000))
def test_written_rolling_track_reads_back(texts, first_ms):
    def stamp(ms):
        return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"

    cues, at, previous = ["WEBVTT", ""], first_ms, " "
    for i in range(0, len(texts), 4):
        row = texts[i : i + 4]
        timed = row[0] + "".join(f"<{stamp(at + 300 * k)}><c> {w}</c>" for k, w in enumerate(row[1:], 1))
        end = at + 300 * len(row)
        cues += [f"{stamp(at)} --> {stamp(end)} align:start position:0%", previous, timed, ""]
        at, previous = end, " ".join(row)
    text = "\n".join([*cues, "", ""])
    if "<c>" not in text:
        return
    assert [w.text for w in parse_vtt(text)] == texts
    assert [w.text for w in read(text, "vtt").words] == texts
