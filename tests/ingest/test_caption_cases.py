"""Caption files from public reports, each with its right words and times."""

import itertools
import json
from pathlib import Path

import pytest

from ingest.captions import LATEST_SECONDS, CaptionError, parse_vtt, read
from ingest.filters import words_per_30s
from ingest.raw import decode_text

CASES = Path(__file__).parent.parent / "fixtures" / "cases"


def words(case, name):
    path = CASES / case / name
    transcript = read(decode_text(path.read_bytes()), path.suffix[1:])
    return [(w.text, w.start, w.end) for w in transcript.words]


def texts(case, name):
    return [text for text, _, _ in words(case, name)]


def spans(case, name):
    """Each run of touching words, as one text with its start and end."""
    joined = []
    for text, start, end in words(case, name):
        if joined and start == pytest.approx(joined[-1][2], abs=1e-6):
            joined[-1] = (f"{joined[-1][0]} {text}", joined[-1][1], end)
        else:
            joined.append((text, start, end))
    return [(text, pytest.approx(start), pytest.approx(end)) for text, start, end in joined]


def test_json3_lines_overlap_the_next_line():
    json3, vtt = (words("json3-last-word-of-line", f"a.en.{form}") for form in ("json3", "vtt"))
    assert [w[0] for w in json3] == [w[0] for w in vtt]
    for ours, theirs in zip(json3, vtt, strict=True):
        assert ours[1:] == pytest.approx(theirs[1:], abs=0.02)
    assert {w[0]: w[2] for w in json3}["seeds"] == pytest.approx(2.395, abs=0.0061)


@pytest.mark.parametrize("form", ["vtt", "json3"])
def test_time_tags_inside_a_word_do_not_split_it(form):
    found = words("syllable-pieces", f"a.en.{form}")
    assert [text for text, _, _ in found] == ["GARDENERS.", "WATER", "DAILY"]
    assert [start for _, start, _ in found] == pytest.approx([5.472, 6.1, 6.5])


@pytest.mark.parametrize("form", ["vtt", "json3"])
def test_a_masked_word_is_one_word(form):
    assert words("masked-word", f"a.en.{form}")[1] == ("[\xa0__\xa0]", 1.3, pytest.approx(1.9))
    assert len(words("masked-word", f"a.en.{form}")) == 5


def test_comments_styles_and_identifiers_are_not_words():
    assert spans("note-block-in-uploaded-track", "a.en-manual.vtt") == [
        ("Good morning gardeners", 1, 3),
        ("Bring a <small> pot", 4, 6),
    ]


def test_srt_positions_and_broken_stamps_are_not_words():
    assert spans("srt-positions-and-bad-stamps", "a.en.srt") == [
        ("Good morning gardeners", 1, 3),
        ("Bring a pot", 4, 6),
        ("with some soil", 7.5, 9),
        ("and water it", 10, 12),
    ]


def test_a_line_that_is_said_twice_is_two_lines():
    found = words("same-line-said-twice", "a.en.vtt")
    assert found[2:] == [
        ("yes", 1.0, 2.0),
        ("yes", 2.01, 3.0),
        ("stop", 3.01, 4.0),
        ("[Music]", 4.01, 6.0),
        ("[Music]", 6.01, 8.0),
    ]
    text = (CASES / "same-line-said-twice" / "a.en.vtt").read_text()
    assert found == [(w.text, w.start, w.end) for w in parse_vtt(text)]


def test_invisible_characters_are_not_words():
    assert texts("cjk-and-rtl", "a.ja.vtt") == ["今日は", "トマト", "を", "植え", "ます"]
    assert texts("cjk-and-rtl", "a.ar.vtt") == ["اليوم", "نزرع", "الطماطم"]
    assert texts("cjk-and-rtl", "a.en-manual.vtt") == ["so", "🍅🍅", "good", "👩🏽‍🌾"]


@pytest.mark.parametrize("name", ["a.en.vtt", "b.en.vtt"])
def test_a_stamp_of_centuries_costs_its_cue_only(name):
    found = read((CASES / "stamp-of-centuries" / name).read_text(), "vtt").words
    assert found[-1].text == "period"
    assert sum(words_per_30s(found)) == len(found) > 90


def test_the_strict_reading_may_have_a_stamp_of_centuries():
    cue = "9999999:00:01.000 --> 9999999:00:02.000 align:start position:0%\n \nx\n\n"
    text = (CASES / "stamp-of-centuries" / "a.en.vtt").read_text() + cue
    found = parse_vtt(text)
    assert found[-1].start > LATEST_SECONDS
    assert words_per_30s(found) == words_per_30s(found[:-1])


def test_arrows_and_stamps_of_many_forms():
    found = [(text, pytest.approx(start), pytest.approx(end)) for text, start, end in words(
        "arrow-without-blanks-and-tabs", "a.en.srt"
    )]  # fmt: skip
    assert found == [("a", 1, 2), ("b", 3, 4), ("c", 5.5, 6.25), ("d", 7.5, 8.5), ("e", 360000, 360001)]


def test_an_empty_line_does_not_end_an_srt_cue():
    assert spans("blank-line-inside-cue", "a.en.srt") == [("two lines of text", 1, 3), ("42", 4, 5), ("end", 6, 7)]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("<i>Bring</i> a <b>p</b>ot", ["Bring", "a", "pot"]),
        ("<v Mara Lee>Good<00:00:01.500> morning", ["Good", "morning"]),
        ("<ruby>漢<rt>kan</rt>字<rt>ji</rt></ruby> day", ["漢字", "day"]),
        ("x < y and 3 > 2", ["x", "<", "y", "and", "3", ">", "2"]),
        ("I <3 you", ["I", "<3", "you"]),
        ("one<br>two<br/>three", ["one", "two", "three"]),
        (r"{\an8}{\pos(10,20)}up\Nhere {laughs}", ["up", "here", "{laughs}"]),
        ("a&nbsp;b 10\xa0000 &lt;small&gt; R&amp;B &#39;tis", ["a", "b", "10\xa0000", "<small>", "R&B", "'tis"]),
        ("wait; what", ["wait;", "what"]),
        ("soft\u00adhyphen zero\u200bwidth \u200b \ufeff \u200f \u2060 \u3164 \ufe0f", ["softhyphen", "zerowidth"]),
        ("&gt;&gt; hello >> you", [">> hello", ">> you"]),
        ("面白い\u3000話", ["面白い", "話"]),
        ("می‌خواهم", ["می‌خواهم"]),
    ],
)
def test_payloads(payload, expected):
    for form, stamp in (("vtt", "00:01.000 --> 00:02.000"), ("srt", "00:00:01,000 --> 00:00:02,000")):
        found = read(f"WEBVTT\n\n{stamp}\n{payload}\n" if form == "vtt" else f"1\n{stamp}\n{payload}\n", form).words
        assert [w.text for w in found] == expected, form


@pytest.mark.parametrize(
    "timing",
    [
        "00:00:01.000 --> 00:00:02.000 line:0 position:20% size:60% align:end",
        "00:01.000 --> 00:02.000",
        "00:00:01,000-->00:00:02,000",
        "0:0:1.0\t-->\t0:0:2.0",
        "00:00:01:000 --> 00:00:02:000",
        "00:00:01. 000 --> 00:00:02 .000",
        "00:00:01,000 -> 00:00:02,000",
        "00:00:01.000 ––> 00:00:02.000",
        "  00:00:01,000 --> 00:00:02,000  X1:0 X2:1 Y1:0 Y2:1",
        "00:00:01 --> 00:00:02",
    ],
)
def test_timing_lines(timing):
    for text, form in ((f"WEBVTT\n\nid\n{timing}\nhello\n", "vtt"), (f"1\n{timing}\nhello\n", "srt")):
        (word,) = read(text, form).words
        assert (word.text, word.start, word.end) == ("hello", 1.0, 2.0)


@pytest.mark.parametrize(
    "timing", ["-00:00:01,000 --> 00:00:02,000", "00:00:0x,000 --> 00:00:02,000", "99999999999:00:00 --> 00:00:02"]
)
def test_a_cue_with_broken_times_is_dropped_whole(timing):
    text = f"1\n00:00:00,000 --> 00:00:00,500\nbefore\n\n2\n{timing}\nlost line\n\n3\n00:00:03,000 --> 00:00:04,000\nafter\n"
    assert [w.text for w in read(text, "srt").words] == ["before", "after"]


def test_an_arrow_in_srt_text_is_text():
    text = "1\n00:00:01,000 --> 00:00:02,000\ngo --> there\n"
    assert [w.text for w in read(text, "srt").words] == ["go", "-->", "there"]


def test_editors_that_strip_blanks_cost_no_word():
    rolling = (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.990 align:start position:0%\n \ngood<00:00:02.000><c> morning</c>\n\n"
        "00:00:02.990 --> 00:00:03.000 align:start position:0%\ngood morning\n \n\n"
        "00:00:03.000 --> 00:00:04.000 align:start position:0%\ngood morning\nfriends\n\n"
    )
    stripped = "\n".join(line.strip() for line in rolling.split("\n"))
    assert read(stripped, "vtt") == read(rolling, "vtt")
    assert len(read(rolling, "vtt").words) == 3


def test_a_rolling_track_converted_to_srt_repeats_nothing():
    lines = ["we plant seeds", "in clay pots", "near the window", "and wait", "and wait"]
    cues, above = [], ""
    for i, line in enumerate(lines):
        text = f"{above}\n{line}" if above else line
        cues += [f"{2 * i + 1}\n00:00:{2 * i:02d},000 --> 00:00:{2 * i + 1:02d},990\n{text}\n"]
        cues += [f"{2 * i + 2}\n00:00:{2 * i + 1:02d},990 --> 00:00:{2 * i + 2:02d},000\n{line}\n"]
        above = line
    assert " ".join(w.text for w in read("\n".join(cues), "srt").words) == " ".join(lines)


def test_uploaded_lines_may_repeat_the_line_before():
    text = "1\n00:00:01,000 --> 00:00:02,000\nyes\n\n2\n00:00:02,000 --> 00:00:03,000\nyes\nno\n"
    assert [w.text for w in read(text, "srt").words] == ["yes", "yes", "no"]


def test_only_cr_lf_and_crlf_end_lines():
    text = "WEBVTT\r\n\r\n00:01.000 --> 00:02.000\r\nup\x85there\u2028now\x0bso\r\n"
    assert [w.text for w in read(text, "vtt").words] == ["up", "there", "now", "so"]


def json3(*events):
    return json.dumps({"events": list(events)})


def event(start, duration, *segments, **more):
    segs = [{"utf8": text} | ({"tOffsetMs": offset} if offset else {}) for text, offset in segments]
    return {"tStartMs": start, "dDurationMs": duration, "segs": segs, **more}


def test_a_styled_upload_has_no_word_times():
    track = read(json3(event(0, 2000, ("bold ", 0), ("and plain", 0), pPenId=1)), "json3")
    assert not track.timed
    assert [w.text for w in track.words] == ["bold", "and", "plain"]


def test_appended_text_goes_on_with_its_line():
    track = read(json3(event(0, 2000, ("wa", 0)), event(500, 1500, ("ter", 0), (" it", 300), aAppend=1)), "json3")
    assert [(w.text, w.start, w.end) for w in track.words] == [("water", 0, 0.8), ("it", 0.8, 2.0)]


def test_a_pause_ends_the_word_before_it():
    track = read(json3(event(0, 9000, ("so", 0), (" long", 400), ("\n", 1000)), event(8000, 900, ("bye", 0))), "json3")
    assert [(w.text, w.end) for w in track.words] == [("so", 0.4), ("long", 1.0), ("bye", 8.9)]


@pytest.mark.parametrize(
    "broken",
    [
        {"tStartMs": None},
        {"tStartMs": -5},
        {"tStartMs": 1e300},
        {"tStartMs": True},
        {"segs": None},
        {"segs": [None, 3, {"utf8": 5}]},
    ],
)
def test_a_broken_event_costs_itself_only(broken):
    track = read(json3(event(0, 900, ("hi", 0)), event(1000, 900, ("lost", 0)) | broken, None, 7), "json3")
    assert [w.text for w in track.words] == ["hi"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"events": {}}', "[" * 100_000, "3", '"x"'])
def test_what_is_not_a_json3_track_is_rejected(text):
    with pytest.raises(CaptionError, match="json3"):
        read(text, "json3")


def test_times_never_run_backwards():
    vtt = (
        "WEBVTT\n\n00:00:05.000 --> 00:00:07.000\nlate<00:00:06.500> tags<00:00:05.500> go<00:00:59.000> back\n\n"
        "00:00:01.000 --> 00:00:09.000\nearly<00:00:02.000> here\n"
    )
    found = read(vtt, "vtt").words
    assert [w.text for w in found] == ["early", "here", "late", "tags", "go", "back"]
    assert all(a.start <= a.end <= b.start for a, b in itertools.pairwise(found))


def test_so_many_words_are_not_one_video():
    with pytest.raises(CaptionError, match="more than 1000000 words"):
        read("1\n00:00:01,000 --> 00:00:02,000\n" + "a " * 1_000_001, "srt")
