"""Split WebVTT and SRT files into cues.

Both are blocks of lines with empty lines between them (W3C WebVTT, section 6.1; SubRip has no standard). A block with a
timing line is a cue, with an optional identifier before it; every other block is a header, a comment, a style or a
region. Non-standard files are parsed by the same rules with tolerance: other arrows and time stamps, no empty line
between cues, empty lines inside cues.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ingest.captions.words import LATEST_SECONDS

_LINE_END = re.compile(r"\r\n|\r|\n")
_ARROW = re.compile(r"[-\u2012-\u2014]+>")
_LIKE_A_STAMP = re.compile(r"\d\s*[:;.,]\s*\d", re.ASCII)
_STAMP = re.compile(r"(?:(?:(\d+)\s*:\s*)?(\d+)\s*:\s*)(\d+)(?:\s*[.,:]\s*(\d+))?", re.ASCII)
_NUMBER = re.compile(r"\s*\d+\s*", re.ASCII)
_LONGEST_NUMBER = 12
"""Maximum number of digits of a field of a time stamp."""

_COMMENT = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:[ \t:]|$)|Style:$")


@dataclass
class Cue:
    """A caption: start and end in seconds, its unparsed lines of text, and its WebVTT settings."""

    start: float
    end: float
    settings: str = ""
    lines: list[str] = field(default_factory=list)


def read_cues(text: str, *, comments: bool) -> list[Cue]:
    """Return the cues of a file in order, without those with invalid times.

    `comments` is whether blocks may be comments, styles and regions, as in WebVTT; in SRT, text after an empty line
    belongs to the cue before it.
    """
    cues: list[Cue] = []
    current: Cue | None = None
    for block in _blocks(text):
        timings = [i for i, line in enumerate(block) if _is_timing(line)]
        continued = _text_before(block, timings, comments)
        # If an editor removed trailing blanks, a rolling cue has an empty line instead of a blank one.
        if continued and current is not None and (not comments or _is_blank(current)):
            current.lines += ["", *continued]
        for first, stop in itertools.zip_longest(timings, timings[1:], fillvalue=len(block)):
            current = _cue(block[first])
            current.lines = block[first + 1 : stop]
            if stop < len(block) and current.lines and _NUMBER.fullmatch(current.lines[-1]):
                # The number of the next cue, without an empty line before it.
                current.lines.pop()
            if 0 <= current.start <= LATEST_SECONDS and 0 <= current.end <= LATEST_SECONDS:
                cues.append(current)
    return cues


def _blocks(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    for line in _LINE_END.split(text.removeprefix("\ufeff")):
        if line:
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _text_before(block: list[str], timings: list[int], comments: bool) -> list[str]:
    """Return the lines of a block before its first timing line that are text of the cue before the block."""
    lines = block[: timings[0]] if timings else block
    if timings and lines and (comments or _NUMBER.fullmatch(lines[-1])):
        lines = lines[:-1]
    return [] if comments and lines and _COMMENT.match(lines[0]) else lines


def _is_timing(line: str) -> bool:
    """Return whether a line is a timing line, possibly with invalid times; such a line is never text."""
    arrow = _ARROW.search(line)
    return bool(arrow and (_LIKE_A_STAMP.search(line, 0, arrow.start()) or _LIKE_A_STAMP.search(line, arrow.end())))


def _is_blank(cue: Cue | None) -> bool:
    return cue is not None and not any(line.strip() for line in cue.lines)


def _cue(timing: str) -> Cue:
    """Return the cue of a timing line, without lines; its start is negative if the line is not valid."""
    arrow = _ARROW.search(timing)
    if arrow is None:
        return Cue(-1.0, -1.0)
    before, after = timing[: arrow.start()].strip(" \t"), timing[arrow.end() :].strip(" \t")
    start, end = _STAMP.fullmatch(before), _STAMP.match(after)
    if start is None or end is None:
        return Cue(-1.0, -1.0)
    return Cue(_seconds(*start.groups()), _seconds(*end.groups()), after[end.end() :])


def stamp_seconds(stamp: str) -> float:
    """Return the seconds of a time stamp, with or without hours and with a dot or a comma; -1 for anything else."""
    match = _STAMP.fullmatch(stamp)
    return _seconds(*match.groups()) if match else -1.0


def _seconds(hours: str | None, minutes: str, whole: str, fraction: str | None) -> float:
    if max(len(hours or ""), len(minutes), len(whole)) > _LONGEST_NUMBER:
        return -1.0
    parts = int(hours or 0) * 3600 + int(minutes) * 60 + int(whole)
    return parts + float(f"0.{(fraction or '0')[:_LONGEST_NUMBER]}")
