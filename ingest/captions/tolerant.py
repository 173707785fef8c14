"""The tolerant parser of WebVTT, SRT and json3 tracks from any source.

Each format is split into entries, texts with times; words, their times and their order follow by common rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ingest.captions import json3
from ingest.captions.cues import Cue, read_cues, stamp_seconds
from ingest.captions.entries import Entry, Piece, words_of
from ingest.captions.plain_text import TIME_TAG, plain, written_words
from ingest.captions.words import CaptionError, Transcript, Word, check_count, in_order, speech_in_order

MAX_CAPTION_CHARACTERS = 16 << 20
"""Maximum length of a track; longer ones are rejected before they are parsed."""

_COPY_SECONDS = 0.02
"""A rolling track repeats a finished line for 10 ms while it moves up."""

_TOUCHING_SECONDS = 0.1
_LEAST_ROLLS = 3


def read(text: str, form: str) -> Transcript:
    """Parse a track tolerantly; `form` is `vtt`, `srt` or `json3`.

    Words are in the order of their starts and do not overlap, except descriptions of sounds in a timed track. Raises
    `CaptionError` for a track without a valid cue, or with more than `MAX_CAPTION_CHARACTERS` characters or `MAX_WORDS`
    words.
    """
    if len(text) > MAX_CAPTION_CHARACTERS:
        raise CaptionError(f"the caption track has {len(text)} characters; at most {MAX_CAPTION_CHARACTERS} are read")
    if form == "json3":
        entries, timed = json3.read_entries(text)
        return _transcript(entries, timed)
    cues = read_cues(text, comments=form == "vtt" or text.lstrip("\ufeff \t\r\n").startswith("WEBVTT"))
    if not cues:
        raise CaptionError("there is no cue of the form 'START --> END'; the file is not a WebVTT or SRT track")
    timed = _is_timed(cues)
    return _transcript(_entries(cues, rolling=timed or _rolls(cues)), timed)


def _transcript(entries: Iterable[Entry], timed: bool) -> Transcript:
    words: list[Word] = []
    for entry in entries:
        words += words_of(entry)
        check_count(len(words))
    return Transcript(speech_in_order(words) if timed else in_order(words), timed)


def _entries(cues: Sequence[Cue], rolling: bool) -> Iterable[Entry]:
    shown: list[str] = []
    for cue in cues:
        lines = [plain(TIME_TAG.sub("", line)).strip() for line in cue.lines]
        new = _first_new_line(cue, lines, shown) if rolling else 0
        pieces = TIME_TAG.split("\n".join(cue.lines[new:]))
        starts = [cue.start, *(stamp_seconds(stamp) for stamp in pieces[1::2])]
        texts = [plain(piece) for piece in pieces[::2]]
        yield Entry([Piece(*piece) for piece in zip(texts, starts, strict=True)], max(cue.start, cue.end))
        shown = [line for line in lines if line]


def _first_new_line(cue: Cue, lines: list[str], shown: list[str]) -> int:
    """Return the number of the first line of a rolling cue that the cue before it did not show."""
    first_timed = next((i for i, line in enumerate(cue.lines) if TIME_TAG.search(line)), len(lines))
    if first_timed == len(lines) and cue.end - cue.start <= _COPY_SECONDS:
        return len(lines)
    if first_timed == len(lines) and len(lines) > 1 and not lines[-1]:
        # The lower line is empty: the lines above it have moved up.
        return len(lines)
    last = min(first_timed, len(lines) - 1)
    if "position:0%" in cue.settings:
        return last
    filled = [i for i in range(last) if lines[i]]
    for count in range(min(len(filled), len(shown)), 0, -1):
        if [lines[i] for i in filled[:count]] == shown[-count:]:
            return filled[count - 1] + 1
    return 0


def _is_timed(cues: Sequence[Cue]) -> bool:
    """Return whether captions of several words contain word times, as those of speech recognition do.

    A single word needs none, and a rolling track repeats each line without them.
    """
    timed = untimed = 0
    for cue in cues:
        if any(TIME_TAG.search(line) for line in cue.lines):
            timed += 1
        elif cue.end - cue.start > _COPY_SECONDS and cue.lines:
            untimed += len(written_words(plain(cue.lines[-1]))) > 1
    return timed > 0 and timed >= untimed


def _rolls(cues: Sequence[Cue]) -> bool:
    """Return whether most captions of several lines start with the last line of the previous caption (rolling)."""
    rolled = several = 0
    before: Cue | None = None
    for cue in cues:
        lines = [line.strip() for line in cue.lines if line.strip()]
        if len(lines) > 1 and before is not None:
            several += 1
            above = [line.strip() for line in before.lines if line.strip()]
            touches = abs(cue.start - before.end) <= _TOUCHING_SECONDS
            rolled += touches and bool(above) and lines[0] == above[-1]
        before = cue
    return rolled >= _LEAST_ROLLS and 2 * rolled >= several
