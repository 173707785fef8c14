"""The strict parser of WebVTT tracks, equal to the published one, for data that must equal the published data set.

Golden tests compare both, including tracks whose words the published parser loses or that it rejects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from ingest.captions.words import CaptionError, Word, share

_ROLLING_HEADER = re.compile(r"(\S+) --> (\S+) align:start position:0%")
_UPLOADED_HEADER = re.compile(r".+ --> \S+")
_TIME_TAG = re.compile(r"<(\d\d:\d\d:\d\d\.\d\d\d)>")
_TIMED_LINE = re.compile(r".+<\d\d:\d\d:\d\d\.\d\d\d>.+")
_COLOUR_TAG = re.compile(r"</?c(?:\.[^<>]*)?>")
_ANY_TAG = re.compile(r"<[^<>]*>")


def seconds(stamp: str) -> float:
    """Return the seconds of `HH:MM:SS.mmm`. Raises `CaptionError` for any other form."""
    try:
        hours, minutes, rest = stamp.split(":")
        whole, fraction = rest.split(".")
        return int(hours) * 3600 + int(minutes) * 60 + int(whole) + float(f"0.{fraction}")
    except (ValueError, OverflowError):
        raise CaptionError(f"{stamp[:40]!r} is not a time stamp of the form HH:MM:SS.mmm") from None


def parse_vtt(text: str, word_times: bool = True) -> list[Word] | None:
    """Parse a WebVTT track exactly as the published parser does.

    With `word_times`, returns `None` for a track without inline word tags. Raises `CaptionError` where the published
    parser raises: for a malformed cue that is not the last one.
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
    """Return the new words of one rolling cue; most cues only repeat lines that are on the screen."""
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
    """Return the words of an uploaded track, which share the time of their cue equally."""
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
            raise CaptionError(f"{header!r} is not a valid timing line")
        start, end = map(seconds, stamps)
        texts = [w for w in _ANY_TAG.sub("", " ".join(body)).split(" ") if w]
        words += share(texts, start, end)
    return words


def clean(words: Iterable[Word]) -> list[Word]:
    """Drop words that are remains of character references, and words that are empty after mojibake repair."""
    import ftfy

    return [w for w in words if not w.text.startswith("&") and not w.text.endswith(";") and ftfy.fix_text(w.text)]
