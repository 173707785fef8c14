"""Split json3, YouTube's own caption format, into entries.

A track is a list of events with times in milliseconds: `tStartMs`, `dDurationMs` (how long the line stays on the
screen), `segs` of text with `tOffsetMs`, and `aAppend` for text that continues the line before it.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from ingest.captions.entries import Entry, Piece
from ingest.captions.words import LATEST_SECONDS, CaptionError


def read_entries(text: str) -> tuple[list[Entry], bool]:
    """Return the entries of a track, and whether its segments have times of their own. Raises `CaptionError`."""
    try:
        track = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"the json3 track is not valid JSON: {str(error)[:80]}") from None
    events = track.get("events") if isinstance(track, dict) else None
    if not isinstance(events, list):
        raise CaptionError("the json3 track has no list of events")
    lines = sorted(
        (line for event in events if isinstance(event, dict) and (line := _line(event))), key=lambda line: line[0]
    )
    entries: list[Entry] = []
    for (start, stop, pieces, append), following in itertools.zip_longest(lines, lines[1:]):
        # A line stays on the screen after the next one has started; an event with only a line break ends it, too.
        end = max(min(stop, following[0]) if following else stop, start)
        if append and entries and any(piece.text.strip() for piece in pieces):
            entries[-1] = Entry((*entries[-1].pieces, *pieces), end)
        else:
            entries.append(Entry(pieces, _spoken_end(pieces, end)))
    timed = any("tOffsetMs" in segment for event in events for segment in _segments(event))
    return entries, timed


def _line(event: dict[str, Any]) -> tuple[float, float, tuple[Piece, ...], bool] | None:
    """Return start, end, pieces and whether it appends; `None` for an event without text or with an invalid time."""
    start = _milliseconds(event.get("tStartMs"))
    if start is None:
        return None
    pieces = tuple(
        # JSON can contain single surrogates, which UTF-8 cannot encode.
        Piece(
            segment["utf8"].encode(errors="replace").decode(),
            (start + (_milliseconds(segment.get("tOffsetMs")) or 0)) / 1000,
        )
        for segment in _segments(event)
        if isinstance(segment.get("utf8"), str)
    )
    stop = start + (_milliseconds(event.get("dDurationMs")) or 0)
    return (start / 1000, stop / 1000, pieces, bool(event.get("aAppend"))) if pieces else None


def _segments(event: object) -> list[dict[str, Any]]:
    segments = event.get("segs") if isinstance(event, dict) else None
    return [segment for segment in segments if isinstance(segment, dict)] if isinstance(segments, list) else []


def _spoken_end(pieces: tuple[Piece, ...], end: float) -> float:
    """Return the end of the last word of a line: trailing blank segments are a pause."""
    pauses = itertools.takewhile(lambda piece: not piece.text.strip(), reversed(pieces))
    return min([end, *(piece.start for piece in pauses)])


def _milliseconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= LATEST_SECONDS * 1000 else None
