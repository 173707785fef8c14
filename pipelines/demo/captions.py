"""Write captions in YouTube's formats: an automatic track with word times, and an uploaded track with sentences.

Both are written from the true words. The automatic track is lower-case, without punctuation, with small time errors,
and rolling: each cue repeats the previous line, and a copy of 10 ms ends each line (docs/spec/ingest.md 7.1, 7.2).
"""

from __future__ import annotations

import html
import random
import string
from collections.abc import Sequence

from pipelines.demo.voice import SpokenWord

JITTER_DEVIATION = 0.04  # seconds by which the automatic times are wrong
JITTER_LIMIT = 0.12

_HEADER = "WEBVTT\nKind: captions\nLanguage: en\n\n"
_SETTINGS = " align:start position:0%"
_LINE_LENGTH = 40  # characters
_LINE_PAUSE = 1.0  # seconds of silence after which a new line begins
_HOLD = 2.0  # seconds for which a line stays when nothing follows
_COPY = 0.01  # seconds a copy cue lasts
_LEAST_STEP = 0.02  # seconds between the starts of two words; leaves room for the copy cue between two lines


def rolling(words: Sequence[SpokenWord], draw: random.Random) -> str:
    """Return the automatic track as WebVTT; `draw` generates its time errors."""
    heard: list[tuple[str, float]] = []
    for word in words:
        text = word.text.strip(string.punctuation).lower()
        error = max(-JITTER_LIMIT, min(JITTER_LIMIT, draw.gauss(0, JITTER_DEVIATION)))
        earliest = heard[-1][1] + _LEAST_STEP if heard else 0.0
        heard.append((html.escape(text, quote=False), round(max(earliest, word.start + error), 3)))
    lines = _lines(heard)
    track, above = _HEADER, " "
    for number, line in enumerate(lines):
        start = line[0][1]
        last = words[sum(len(earlier) for earlier in lines[: number + 1]) - 1]
        end = max(last.end, line[-1][1]) + _HOLD
        if number + 1 < len(lines):
            end = min(end, lines[number + 1][0][1] - _COPY)
        tagged = line[0][0] + "".join(f"<{stamp(time)}><c> {text}</c>" for text, time in line[1:])
        plain = " ".join(text for text, _ in line)
        track += f"{stamp(start)} --> {stamp(end)}{_SETTINGS}\n{above}\n{tagged}\n\n"
        track += f"{stamp(end)} --> {stamp(end + _COPY)}{_SETTINGS}\n{plain}\n \n\n"
        above = plain
    return track


def uploaded(words: Sequence[SpokenWord]) -> str:
    """Return the uploaded track as WebVTT: one cue per sentence, in lines of at most 40 characters."""
    track = _HEADER
    for text, start, end in sentences(words):
        track += f"{stamp(start)} --> {stamp(end)}\n{_wrap(html.escape(text, quote=False))}\n\n"
    return track


def sentences(words: Sequence[SpokenWord]) -> list[tuple[str, float, float]]:
    """Join words into sentences; returns text, start and end in seconds of each."""
    result, first = [], 0
    for index, word in enumerate(words):
        if word.text[-1] in ".?!" or index + 1 == len(words):
            members = words[first : index + 1]
            result.append((" ".join(m.text for m in members), members[0].start, word.end))
            first = index + 1
    return result


def stamp(seconds: float) -> str:
    """Format a time as `HH:MM:SS.mmm`."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _lines(heard: list[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    lines: list[list[tuple[str, float]]] = []
    for text, time in heard:
        length = sum(len(earlier) + 1 for earlier, _ in lines[-1]) + len(text) if lines else 0
        if not lines or length > _LINE_LENGTH or time - lines[-1][-1][1] > _LINE_PAUSE:
            lines.append([])
        lines[-1].append((text, time))
    return lines


def _wrap(text: str) -> str:
    rows = [""]
    for word in text.split():
        if rows[-1] and len(rows[-1]) + 1 + len(word) > _LINE_LENGTH:
            rows.append(word)
        else:
            rows[-1] = f"{rows[-1]} {word}".strip()
    return "\n".join(rows)
