"""Caption tracks become words with times.

Two readings live here. The strict one is the published parser to the letter (spec ingest.md 7.1-7.3), including what it
refuses. The tolerant one reads what people really have: short time stamps, cue identifiers, entities, SRT, json3 and
uploaded text, with every entry split into single words.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np


class CaptionError(ValueError):
    """A caption track is not well formed; the message quotes the place."""


@dataclass(frozen=True)
class Word:
    """A spoken word with its start and end in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """The words of one track; `timed` says whether the track itself gave a time to every word."""

    words: list[Word]
    timed: bool


MAX_CAPTION_BYTES = 32 << 20
"""A track larger than this is not a transcript of one video; it is refused before it is parsed."""

_ROLLING_HEADER = re.compile(r"(\S+) --> (\S+) align:start position:0%")
_UPLOADED_HEADER = re.compile(r".+ --> \S+")
_TIME_TAG = re.compile(r"<(\d\d:\d\d:\d\d\.\d\d\d)>")
_TIMED_LINE = re.compile(r".+<\d\d:\d\d:\d\d\.\d\d\d>.+")
_COLOUR_TAG = re.compile(r"</?c(?:\.[^<>]*)?>")
_ANY_TAG = re.compile(r"<[^<>]*>")


def seconds(stamp: str) -> float:
    """Seconds of `HH:MM:SS.mmm`. Raises `CaptionError` for any other shape."""
    try:
        hours, minutes, rest = stamp.split(":")
        whole, fraction = rest.split(".")
        return int(hours) * 3600 + int(minutes) * 60 + int(whole) + float(f"0.{fraction}")
    except (ValueError, OverflowError):
        raise CaptionError(f"{stamp[:40]!r} is not a time stamp of the form HH:MM:SS.mmm") from None


def parse_vtt(text: str, word_times: bool = True) -> list[Word] | None:
    """Read a WebVTT track strictly as the published parser does (spec ingest.md 7.1-7.3).

    With `word_times` a track without inline word tags gives `None`. Raises `CaptionError` where the published parser
    raised: a malformed cue that is not the last one.
    """
    if word_times and "<c>" not in text:
        return None
    lines = text.splitlines()
    words: list[Word] = []
    cues = list(_rolling_cues(lines))
    for position, (header, body) in enumerate(cues):
        try:
            words += _rolling_words(header, body)
        except CaptionError:
            if position + 1 < len(cues):
                raise
    if not cues and lines[:1] == ["WEBVTT"]:
        return None if word_times else _uploaded_words(lines)
    return words


def _rolling_cues(lines: list[str]) -> Iterator[tuple[tuple[str, str], list[str]]]:
    header, body = None, []
    for line in lines:
        if match := _ROLLING_HEADER.match(line):
            if header:
                yield header, body
            header, body = (match[1], match[2]), []
        else:
            body.append(line)
    if header:
        yield header, body


def _rolling_words(header: tuple[str, str], body: list[str]) -> list[Word]:
    """The words that one rolling cue adds; most cues only repeat what is on the screen (spec ingest.md 7.2)."""
    timed = [line for line in body if _TIMED_LINE.match(line)]
    if len(timed) > 1:
        raise CaptionError(f"two lines with word times in one cue: {timed[0][:60]!r} and {timed[1][:60]!r}")
    start, end = seconds(header[0]), seconds(header[1])
    if not timed:
        shown = body[1].strip() if len(body) >= 3 else ""
        return [Word(shown, start, end)] if shown and "<c>" not in shown else []
    carried = "".join(_COLOUR_TAG.findall(body[0]))
    starts = _node_starts(carried + timed[0], start)
    ends = [s for _, s in starts[1:]] + [end]
    return [Word(text, s, e) for (text, s), e in zip(starts, ends, strict=True)]


class _NodeReader(HTMLParser):
    """Collects (text, start) of every text node; a `time` element moves the current start."""

    def __init__(self, start: float):
        super().__init__(convert_charrefs=True)
        self.current = start
        self.nodes: list[tuple[str, float]] = []
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._flush()
        if tag == "reservoir-time":
            self.current = seconds(dict(attrs)["at"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._flush()

    def handle_data(self, data: str) -> None:
        self._text += data

    def close(self) -> None:
        super().close()
        self._flush()

    def _flush(self) -> None:
        if text := self._text.strip():
            self.nodes.append((text, self.current))
        self._text = ""


def _node_starts(line: str, start: float) -> list[tuple[str, float]]:
    reader = _NodeReader(start)
    reader.feed(_TIME_TAG.sub(r'<reservoir-time at="\1"></reservoir-time>', line))
    reader.close()
    return reader.nodes


def _uploaded_words(lines: list[str]) -> list[Word]:
    """Words of an uploaded track: each cue's time is shared equally (spec ingest.md 7.3)."""
    cues: list[tuple[str, list[str]]] = []
    for line in lines:
        if _UPLOADED_HEADER.match(line):
            cues.append((line[:29], []))
        elif cues:
            cues[-1][1].append(line)
    words = []
    for header, body in cues:
        stamps = header.split(" --> ")
        if len(stamps) != 2:
            raise CaptionError(f"{header!r} is not the header of a cue")
        start, end = map(seconds, stamps)
        texts = [w for w in _ANY_TAG.sub("", " ".join(body)).split(" ") if w]
        words += _share(texts, start, end)
    return words


def _share(texts: list[str], start: float, end: float) -> list[Word]:
    if not (math.isfinite(start) and math.isfinite(end)):
        raise CaptionError(f"a cue lasts from {start} to {end} seconds")
    bounds = np.linspace(start, end, len(texts) + 1).tolist()
    return [Word(text, s, e) for text, s, e in zip(texts, bounds, bounds[1:], strict=False)]


def clean(words: Iterable[Word]) -> list[Word]:
    """Drop entity remains and words that mojibake repair leaves empty (spec ingest.md 8.1)."""
    import ftfy

    return [w for w in words if not w.text.startswith("&") and not w.text.endswith(";") and ftfy.fix_text(w.text)]


_TOLERANT_HEADER = re.compile(r"^\s*((?:\d+:)?\d+:\d+[.,]\d+)\s*-->\s*((?:\d+:)?\d+:\d+[.,]\d+)(?:\s|$)")
_TOLERANT_TIME_TAG = re.compile(r"<((?:\d+:)?\d+:\d+\.\d+)>")


def read(text: str, form: str) -> Transcript:
    """Read a track tolerantly; `form` is `vtt`, `srt` or `json3`.

    Every entry is split into words with interpolated times, entities are decoded, cue identifiers are dropped, and
    overlapping cues of an uploaded track are put in order (recognised words keep the track's order). Raises
    `CaptionError` when nothing in `text` looks like the form.
    """
    if len(text) > MAX_CAPTION_BYTES:
        raise CaptionError(f"the caption track has {len(text)} characters; at most {MAX_CAPTION_BYTES} are read")
    if form == "json3":
        return _read_json3(text)
    return _read_cues(text)


def _read_cues(text: str) -> Transcript:
    lines = text.removeprefix("\ufeff").splitlines()
    cues: list[tuple[float, float, list[str]]] = []
    for line in lines:
        if match := _TOLERANT_HEADER.match(line):
            cues.append((_loose_seconds(match[1]), _loose_seconds(match[2]), []))
        elif cues:
            cues[-1][2].append(line)
    if not cues:
        raise CaptionError("no cue of the form 'START --> END' was found; the file is not a WebVTT or SRT track")
    if any(_TOLERANT_TIME_TAG.search(line) for _, _, body in cues for line in body):
        return Transcript(list(_tolerant_rolling(cues)), timed=True)
    words: list[Word] = []
    for position, (start, end, body) in enumerate(cues):
        if position + 1 < len(cues):
            body = _without_identifier(body)
        words += _share(html.unescape(_ANY_TAG.sub("", " ".join(body))).split(), start, max(end, start))
    return Transcript(_in_order(words), timed=False)


def _tolerant_rolling(cues: list[tuple[float, float, list[str]]]) -> Iterator[Word]:
    """New words of each rolling cue: its timed lines, or a single new line under the carried one."""
    shown = ""
    for start, end, body in cues:
        timed = [line for line in body if _TOLERANT_TIME_TAG.search(line)]
        for line in timed:
            pieces = _TOLERANT_TIME_TAG.split(line)
            starts = [start, *(_loose_seconds(stamp) for stamp in pieces[1::2])]
            ends = [*starts[1:], end]
            for piece, s, e in zip(pieces[::2], starts, ends, strict=True):
                yield from _share(html.unescape(_ANY_TAG.sub("", piece)).split(), s, max(s, e))
        plain = [text for line in body if (text := html.unescape(_ANY_TAG.sub("", line)).strip())]
        if not timed and len(plain) > 0 and end - start > 0.02 and plain[-1] != shown:
            yield from _share(plain[-1].split(), start, end)
        shown = plain[-1] if plain else shown


def _without_identifier(body: list[str]) -> list[str]:
    """A cue's body without the identifier line that belongs to the cue after it."""
    if len(body) >= 2 and not body[-2].strip() and body[-1].strip():
        return body[:-2]
    return body


def _loose_seconds(stamp: str) -> float:
    fields = [float(field) for field in stamp.replace(",", ".").split(":")]
    return sum(field * 60**power for power, field in enumerate(reversed(fields)))


def _read_json3(text: str) -> Transcript:
    """Words of YouTube's json3 form: events with millisecond offsets per segment."""
    try:
        events = json.loads(text)["events"]
        timed = any(len(event.get("segs", ())) > 1 for event in events)
        words = [word for event in events for word in _json3_event(event)]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CaptionError(f"the json3 track cannot be read: {type(error).__name__}: {str(error)[:80]}") from None
    return Transcript(words if timed else _in_order(words), timed)


def _json3_event(event: dict) -> Iterator[Word]:
    segments = [s for s in event.get("segs", ()) if s.get("utf8", "").strip()]
    if not segments or event.get("aAppend"):
        return
    start = event["tStartMs"] / 1000
    end = start + event.get("dDurationMs", 0) / 1000
    starts = [start + s.get("tOffsetMs", 0) / 1000 for s in segments]
    for segment, s, e in zip(segments, starts, [*starts[1:], end], strict=True):
        text = segment["utf8"].encode(errors="replace").decode()  # JSON can spell what UTF-8 cannot
        yield from _share(text.split(), s, max(s, e))


def _in_order(words: Iterable[Word]) -> list[Word]:
    """Words sorted by start, each cut where the next one starts, so that overlapping cues cannot speak at once."""
    ordered = sorted(words, key=lambda word: word.start)
    limits = [*(word.start for word in ordered[1:]), float("inf")]
    return [Word(w.text, w.start, max(w.start, min(w.end, limit))) for w, limit in zip(ordered, limits, strict=False)]
