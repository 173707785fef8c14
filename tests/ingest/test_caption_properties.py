"""Tracks written in many spellings from known words and times must read back as these."""

import html
import itertools
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ingest.captions import CaptionError, parse_vtt, read

WORD = st.from_regex(r"[a-z]{1,8}(?:'[a-z]{1,2})?[,.;!?]?", fullmatch=True) | st.sampled_from(
    ["[Music]", "[\xa0__\xa0]", "R&B", "<small>", "42", "naïve", "été", "10\xa0000", "🍅", "привет"]
)


@st.composite
def lines(draw, word=WORD):
    """Captions as (start, [(word, start)], end) in milliseconds, in order, with or without pauses."""
    at, said = draw(st.integers(0, 5000)), []
    for texts in draw(st.lists(st.lists(word, min_size=1, max_size=6), min_size=1, max_size=8)):
        starts = list(
            itertools.accumulate(draw(st.lists(st.integers(60, 900), min_size=len(texts), max_size=len(texts))))
        )
        times = [at, *(at + start for start in starts)]
        said.append((at, list(zip(texts, times, strict=False)), times[-1]))
        at = times[-1] + 10 + draw(st.sampled_from([0, 0, 0, 500, 20_000]))
    return said


def truth(said):
    """(word, start, end) with the times of speech recognition: a word ends where the next one of its line starts."""
    found = []
    for _, words, end in said:
        ends = [start for _, start in words[1:]] + [end]
        found += [(text, start / 1000, stop / 1000) for (text, start), stop in zip(words, ends, strict=True)]
    return found


def shared(said):
    """(word, start, end) where each caption's time is shared evenly."""
    found = []
    for start, words, end in said:
        step = (end - start) / len(words)
        found += [
            (text, (start + i * step) / 1000, (start + (i + 1) * step) / 1000) for i, (text, _) in enumerate(words)
        ]
    return found


def stamp(ms, comma="."):
    return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}{comma}{ms % 1000:03d}"


def assert_reads(track, expected):
    assert [w.text for w in track.words] == [text for text, _, _ in expected]
    for word, (_, start, end) in zip(track.words, expected, strict=True):
        assert (word.start, word.end) == pytest.approx((start, end), abs=1e-6)


def rolling(said):
    """The track as YouTube writes it."""
    blocks, above = ["WEBVTT\nKind: captions\nLanguage: en"], " "
    for start, words, end in said:
        first, *rest = [(html.escape(text, quote=False).replace("\xa0", "&nbsp;"), at) for text, at in words]
        line = first[0] + "".join(f"<{stamp(at)}><c> {text}</c>" for text, at in rest)
        plain = " ".join(text for text, _ in [first, *rest])
        blocks.append(f"{stamp(start)} --> {stamp(end)} align:start position:0%\n{above}\n{line}")
        blocks.append(f"{stamp(end)} --> {stamp(end + 10)} align:start position:0%\n{plain}\n ")
        above = plain
    return "\n\n".join(blocks) + "\n\n"


SPELLINGS = {
    "as it is": lambda text: text,
    "byte order mark": lambda text: "\ufeff" + text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "blanks removed at line ends": lambda text: "\n".join(line.rstrip(" ") for line in text.split("\n")),
    "colours": lambda text: text.replace("<c>", "<c.colorE5E5E5>"),
    "old style block": lambda text: text.replace(
        "Language: en", "Language: en\nStyle:\n::cue(c.colorCCCCCC) { color: rgb(204,204,204);\n }\n##"
    ),
    "comments": lambda text: text.replace("\n\n", "\n\nNOTE nobody says this\nnor this\n\nNOTE\n\n"),
    "no hours": lambda text: text.replace("00:0", "0", 0) if "01:" in text else text.replace(" 00:", " ").replace("\n00:", "\n").replace("<00:", "<"),
    "tags without the class": lambda text: text.replace("<c>", "").replace("</c>", ""),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(said=lines())
@settings(max_examples=25)
def test_a_rolling_track(spelling, said):
    assume(any(len(words) > 1 for _, words, _ in said))
    assert_reads(read(SPELLINGS[spelling](rolling(said)), "vtt"), truth(said))


@given(said=lines())
def test_both_readings_agree_on_a_rolling_track(said):
    assume(any(len(words) > 1 for _, words, _ in said))
    text = rolling(said)
    # The published reading decodes no character references in a line of one word.
    strict = [(html.unescape(w.text), w.start, w.end) for w in parse_vtt(text)]
    assert_reads(read(text, "vtt"), strict)


@pytest.mark.parametrize("line_breaks", [False, True])
@given(said=lines())
def test_json3(line_breaks, said):
    assume(any(len(words) > 1 for _, words, _ in said))
    events = [{"tStartMs": 0, "dDurationMs": 10**6, "id": 1, "wpWinPosId": 1}]
    for (start, words, end), following in itertools.zip_longest(said, said[1:]):
        segments = [{"utf8": words[0][0], "acAsrConf": 0}]
        segments += [{"utf8": f" {text}", "tOffsetMs": at - start} for text, at in words[1:]]
        # With line breaks a line is shown until the next one ends, however long the pause between them is.
        touching = following and following[0] == end + 10
        shown = following[2] if following and (line_breaks or touching) else end
        events.append({"tStartMs": start, "dDurationMs": shown - start, "wWinId": 1, "segs": segments})
        if line_breaks:
            events.append({"tStartMs": end, "dDurationMs": shown - end, "aAppend": 1, "segs": [{"utf8": "\n"}]})
    expected = truth(said)
    if not line_breaks:
        # Nothing says that a line ends before the next one starts.
        starts = [start for _, start, _ in expected[1:]] + [expected[-1][2]]
        expected = [
            (text, start, next_start if next_start - end < 0.02 else end)
            for (text, start, end), next_start in zip(expected, starts, strict=True)
        ]
    assert_reads(read(json.dumps({"wireMagic": "pb3", "events": events}), "json3"), expected)


@given(
    said=lines(st.from_regex(r"[a-z]{1,8}[,.;!?]?", fullmatch=True)),
    end_of_line=st.sampled_from(["\n", "\r\n", "\r"]),
    arrow=st.sampled_from([" --> ", "-->", "\t-->\t", " -> "]),
    comma=st.sampled_from([",", "."]),
    position=st.sampled_from(["", " X1:1 X2:2 Y1:3 Y2:4"]),
    tag=st.sampled_from(["", "<i>", '<font color="#fff">', r"{\an8}", "{y:i}"]),
    between=st.sampled_from(["", "\n", "\n\n"]),
    numbers=st.booleans(),
    inner=st.sampled_from([" ", "\n", "\n\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_srt(said, end_of_line, arrow, comma, position, tag, between, numbers, inner, mark):
    assume(numbers or (between and inner != "\n\n"))
    text = mark
    for number, (start, words, end) in enumerate(said, 1):
        text += f"{number}\n" if numbers else ""
        text += f"{stamp(start, comma)}{arrow}{stamp(end, comma)}{position}\n"
        text += tag + inner.join(word for word, _ in words) + f"\n{between}"
    assert_reads(read(text.replace("\n", end_of_line), "srt"), shared(said))


@given(
    said=lines(st.from_regex(r"[a-z]{1,8}[,.;!?]?", fullmatch=True)),
    identifier=st.sampled_from(["", "7\n", "intro - part 2\n"]),
    positions=st.sampled_from(["", " line:0", " region:fred align:left size:50%"]),
    comment=st.sampled_from(["", "NOTE a\nb\n\n", "STYLE\n::cue { color: red }\n\n", "REGION\nid:fred\n\n"]),
    voice=st.sampled_from(["", "<v Mara>", "<lang en><i.loud>"]),
    inner=st.sampled_from([" ", "\n", " <b></b>", "<br>"]),
)
def test_uploaded_webvtt(said, identifier, positions, comment, voice, inner):
    text = "WEBVTT - a title\nKind: captions\n\n"
    for start, words, end in said:
        text += f"{comment}{identifier}{stamp(start)} --> {stamp(end)}{positions}\n"
        text += voice + inner.join(word for word, _ in words) + "\n\n"
    assert_reads(read(text, "vtt"), shared(said))


@pytest.mark.parametrize("form", ["vtt", "srt", "json3"])
@given(text=st.text(max_size=300) | st.lists(st.sampled_from([
    "WEBVTT\n", "\n", "00:01.000", " --> ", "99:59:59,999", "<00:00:01.000>", "<c>", "</c>", "1", "{\\an8}", "NOTE", "&gt;",
    '{"events":[', '{"tStartMs":5,', '"dDurationMs":9,"segs":[', '{"utf8":"a"}', "]}", "\u200b", "position:0%", " ", "word",
])).map("".join))  # fmt: skip
def test_any_text_gives_ordered_words_or_the_typed_error(form, text):
    try:
        track = read(text, form)
    except CaptionError:
        return
    assert all(word.text.strip() and 0 <= word.start <= word.end for word in track.words)
    spoken = [word for word in track.words if not word.text.startswith("[")]
    assert all(a.end <= b.start for a, b in itertools.pairwise(spoken))
