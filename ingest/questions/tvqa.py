"""Prepare one TVQA question: the seven segments around its moment, each with frame, sound and subtitles.

The defaults follow the data set's definition; `TvqaPreparation.published` reproduces the released preparation
(docs/spec/finetune_data.md 3).
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int16

from ingest import media
from ingest.media import MediaError
from ingest.questions.clips import (
    FRAMES_PER_SECOND,
    Span,
    Subtitle,
    parse_srt,
    sample_rate,
    share_out,
    spectrograms,
    time_grid,
)
from ingest.questions.pictures import jpeg, open_picture
from ingest.questions.preparation import Rate, TvqaPreparation
from ingest.questions.question import (
    QuestionError,
    QuestionOutcome,
    check_options,
    encode,
    encode_all,
    field,
    is_file,
    label,
    name_of,
    read_file,
    text_of,
)
from shards.records.choices import ClipRecord, ClipSegment
from shards.records.tvqa import OPTIONS
from shards.tokens import START

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHOWS = {
    "Grey's Anatomy": ("grey", "grey"),
    "How I Met You Mother": ("met", "met"),
    "Friends": ("friends", "friends"),
    "The Big Bang Theory": ("bbt", "bbt_new"),
    "House M.D.": ("house", "house"),
    "Castle": ("castle", "castle"),
}
"""The data set's names of the series, with the folders of their frames and of their sound."""

_OTHER_SPELLINGS = {
    "How I Met You Mother": ("How I Met Your Mother", "met"),
    "Grey's Anatomy": ("grey",),
    "The Big Bang Theory": ("Big Bang Theory", "bbt"),
    "House M.D.": ("House",),
}

_LAST_FRAME = 1_000_000
"""Maximum number of a frame, four days into a clip; files with larger numbers are ignored."""

_WHOLE_CLIP = (0.0, 9999.0)
_TIMES = re.compile(r"\s*(-?[\d.]+|nan)\s*-\s*(-?[\d.]+|nan)\s*", re.IGNORECASE)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


_BY_LETTERS = {
    _letters(spelling): folders
    for name, folders in SHOWS.items()
    for spelling in (name, *_OTHER_SPELLINGS.get(name, ()))
}


@dataclass(frozen=True)
class Clip:
    """The files of a clip: paths of its frames by number, from 1 at 3 per second, its sound and its subtitles."""

    frames: dict[int, Path]
    samples: Int16[np.ndarray, "samples"]
    subtitles: list[Subtitle]


def read_clip(data: str, line: dict[str, Any], rate: Rate) -> Clip:
    """Read the files of a question's clip from the official folder. Raises `QuestionError` naming a missing file."""
    root, name, series = Path(data), name_of(line, "vid_name"), field(line, "show_name", str)
    if "/" in name or name in (".", ".."):
        raise QuestionError(QuestionOutcome.BAD_LINE, f"vid_name is {name[:60]!r}, which is a path; it names one clip")
    folders = _BY_LETTERS.get(_letters(series))
    if folders is None:
        raise QuestionError(
            QuestionOutcome.UNKNOWN_SHOW, f"{series[:60]!r} is not one of the series: {', '.join(SHOWS)}"
        )
    show, audio_show = folders
    folder = root / "tvqa_frames" / "frames_hq" / f"{show}_frames" / name
    frames = _frames(folder)
    if not frames:
        raise QuestionError(QuestionOutcome.FRAMES_MISSING, f"there are no frames in {str(folder)[:200]!r}")
    srt = root / "tvqa_subtitles" / f"{name}.srt"
    if not is_file(srt):
        raise QuestionError(QuestionOutcome.SUBTITLES_MISSING, f"there is no subtitle file {str(srt)[:200]!r}")
    sound = root / "tvqa_frames" / "audios" / audio_show / f"{show}_audios" / f"{name}.mp3"
    if not is_file(sound):
        raise QuestionError(QuestionOutcome.SOUND_MISSING, f"there is no sound file {str(sound)[:200]!r}")
    try:
        with media.sound(str(sound), sample_rate(rate)) as track:
            samples = track.read(0, track.length)
    except MediaError as error:
        raise QuestionError(QuestionOutcome.SOUND_UNREADABLE, str(error)) from None
    return Clip(frames, samples, parse_srt(read_file(srt, QuestionOutcome.SUBTITLES_MISSING).decode(errors="replace")))


def _frames(folder: Path) -> dict[int, Path]:
    """Return the frames of a clip by number, from 1; empty if the folder does not exist."""
    try:
        names = [path for path in folder.glob("*.jpg") if path.stem.isascii() and path.stem.isdecimal()]
    except OSError:
        return {}
    return {int(path.stem): path for path in names if 0 < int(path.stem) <= _LAST_FRAME}


def prepare(
    line: dict[str, Any],
    clip: Clip,
    tokenizer: Tokenizer,
    labelled: bool = True,
    config: TvqaPreparation | None = None,
) -> ClipRecord:
    """Return the record of a question. Raises `QuestionError` for a line that is not valid."""
    config = config or TvqaPreparation()
    last = max(clip.frames)
    start, end = moment(line, (last - 1) / FRAMES_PER_SECOND)
    spans = time_grid(start, end, 0.0, (last - 1) / FRAMES_PER_SECOND)
    sounds, magic = spectrograms(clip.samples, spans, config.rate)
    subtitles = share_out(clip.subtitles, spans)
    pictures = [_picture(clip, span, last) for span in spans]
    question = text_of(line, "q")
    texts = [field(line, f"a{i}", str) for i in range(OPTIONS)]
    if labelled:
        # Training needs distinct options; a leaderboard requires an answer to every question.
        check_options(texts, "a0 to a4")
    return ClipRecord(
        id=f"{field(line, 'qid', int):06d}~{name_of(line, 'vid_name')}",
        query=np.concatenate(
            [encode(tokenizer, where(start, end, spans, config)), [START], encode(tokenizer, question)]
        ),
        options=encode_all(tokenizer, texts),
        label=label(line, "answer_idx", OPTIONS, labelled),
        segments=tuple(
            ClipSegment(image, sound, encode(tokenizer, text))
            for image, sound, text in zip(pictures, sounds, subtitles, strict=True)
        ),
        magic=magic,
    )


def moment(line: dict[str, Any], duration: float) -> tuple[float, float]:
    """Return start and end of the question's moment, in seconds within the clip; the whole clip if both are NaN.

    Raises `QuestionError` for times that are not valid or outside the clip.
    """
    stated = str(line.get("ts"))[:60]
    match = _TIMES.fullmatch(stated)
    try:
        if match is None:
            raise ValueError("no match")
        start, end = map(float, match.groups())
    except ValueError:
        raise QuestionError(QuestionOutcome.BAD_LINE, f"ts is {stated!r}, not START-END in seconds") from None
    if math.isnan(start) and math.isnan(end):
        start, end = _WHOLE_CLIP
    if not start <= end:
        raise QuestionError(
            QuestionOutcome.BAD_LINE, f"ts is {stated!r}; both times must be numbers, and the first the smaller one"
        )
    if start > duration or end < 0:
        raise QuestionError(
            QuestionOutcome.TIMES_OUTSIDE, f"ts is {stated!r} and the clip ends after {duration:.1f} seconds"
        )
    return max(start, 0.0), min(end, duration)


def where(start: float, end: float, spans: list[Span], config: TvqaPreparation) -> str:
    """Return the moment as text for the question: `FROM to TO` in percent of the segments."""
    length = spans[-1].end - spans[0].start
    percents = [int(100 * ((seconds - spans[0].start) / length)) for seconds in (start, end)]
    if config.clamp_moment:
        percents = [min(max(percent, 0), 100) for percent in percents]
    return f"{percents[0]} to {percents[1]}"


def _picture(clip: Clip, span: Span, last: int) -> bytes:
    """Return the frame at the middle of a segment, or the nearest existing one, as JPEG."""
    number = min(max(round(FRAMES_PER_SECOND * span.middle) + 1, 1), last)
    path = clip.frames[nearest(sorted(clip.frames), number)]
    data = read_file(path, QuestionOutcome.IMAGE_MISSING)
    return jpeg(open_picture(data, path.name))


def nearest(numbers: list[int], target: int) -> int:
    """Return the number closest to `target`, the smaller of two; `numbers` are sorted."""
    at = bisect.bisect_left(numbers, target)
    return min(numbers[max(at - 1, 0) : at + 1], key=lambda number: (abs(number - target), number))
