"""One TVQA question: the seven segments around its moment, each with picture, sound and subtitles.

The defaults do what the data set means; `TvqaPreparation.published` repeats the released preparation (spec
finetune_data.md 3).
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest import media
from ingest.media import MediaError
from ingest.preparation import Rate, TvqaPreparation
from ingest.question_clips import (
    FRAMES_PER_SECOND,
    Span,
    Subtitle,
    parse_srt,
    sample_rate,
    share_out,
    spectrograms,
    time_grid,
)
from ingest.questions import QuestionError, QuestionOutcome, encode, encode_all, field, jpeg, label, open_picture
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
"""The data set's names of the series, and the folders of their frames and of their sound."""

_WHOLE_CLIP = (0.0, 9999.0)
_TIMES = re.compile(r"\s*(-?[\d.]+|nan)\s*-\s*(-?[\d.]+|nan)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Clip:
    """What lies in the files of a clip: paths of its frames by number, from 1 at 3 a second, its sound and speech."""

    frames: dict[int, Path]
    samples: np.ndarray
    subtitles: list[Subtitle]


def read_clip(data: str, line: dict[str, Any], rate: Rate) -> Clip:
    """The files of a question's clip under the official folder. Raises `QuestionError` naming what is missing."""
    root, name, series = Path(data), field(line, "vid_name", str), field(line, "show_name", str)
    if series not in SHOWS:
        raise QuestionError(QuestionOutcome.UNKNOWN_SHOW, f"{series!r} is none of the series: {', '.join(SHOWS)}")
    show, audio_show = SHOWS[series]
    folder = root / "tvqa_frames" / "frames_hq" / f"{show}_frames" / name
    frames = {int(path.stem): path for path in folder.glob("*.jpg") if path.stem.isdecimal() and int(path.stem) > 0}
    if not frames:
        raise QuestionError(QuestionOutcome.FRAMES_MISSING, f"there are no frames in {str(folder)!r}")
    srt = root / "tvqa_subtitles" / f"{name}.srt"
    if not srt.is_file():
        raise QuestionError(QuestionOutcome.SUBTITLES_MISSING, f"there is no subtitle file {str(srt)!r}")
    sound = root / "tvqa_frames" / "audios" / audio_show / f"{show}_audios" / f"{name}.mp3"
    if not sound.is_file():
        raise QuestionError(QuestionOutcome.SOUND_MISSING, f"there is no sound file {str(sound)!r}")
    try:
        with media.sound(str(sound), sample_rate(rate)) as track:
            samples = track.read(0, track.length)
    except MediaError as error:
        raise QuestionError(QuestionOutcome.SOUND_UNREADABLE, str(error)) from None
    return Clip(frames, samples, parse_srt(srt.read_text(encoding="utf-8", errors="replace")))


def prepare(
    line: dict[str, Any],
    clip: Clip,
    tokenizer: Tokenizer,
    labelled: bool = True,
    config: TvqaPreparation | None = None,
) -> ClipRecord:
    """The record of a question. Raises `QuestionError` for a line that cannot be used."""
    config = config or TvqaPreparation()
    last = max(clip.frames)
    start, end = moment(line, (last - 1) / FRAMES_PER_SECOND)
    spans = time_grid(start, end, 0.0, (last - 1) / FRAMES_PER_SECOND)
    sounds, magic = spectrograms(clip.samples, spans, config.rate)
    spoken = share_out(clip.subtitles, spans)
    pictures = [_picture(clip, span, last) for span in spans]
    question = field(line, "q", str)
    options = encode_all(tokenizer, [field(line, f"a{i}", str) for i in range(OPTIONS)])
    return ClipRecord(
        id=f"{field(line, 'qid', int):06d}~{field(line, 'vid_name', str)}",
        query=np.concatenate(
            [encode(tokenizer, where(start, end, spans, config)), [START], encode(tokenizer, question)]
        ),
        options=options,
        label=label(line, "answer_idx", OPTIONS, labelled),
        segments=tuple(
            ClipSegment(image, sound, encode(tokenizer, text))
            for image, sound, text in zip(pictures, sounds, spoken, strict=True)
        ),
        magic=magic,
    )


def moment(line: dict[str, Any], duration: float) -> tuple[float, float]:
    """When the question's moment starts and ends, in seconds within the clip; all of it if the times are NaN."""
    match = _TIMES.fullmatch(str(line.get("ts")))
    try:
        start, end = map(float, match.groups()) if match else (None, None)
    except ValueError:
        start = None
    if start is None:
        raise QuestionError(QuestionOutcome.BAD_LINE, f"ts is {str(line.get('ts'))[:60]!r}, not START-END in seconds")
    if math.isnan(start) or math.isnan(end):
        start, end = _WHOLE_CLIP
    start, end = max(start, 0.0), min(end, duration)
    if start > duration:
        raise QuestionError(
            QuestionOutcome.TIMES_OUTSIDE, f"ts is {line['ts']!r} and the clip ends after {duration:.1f} seconds"
        )
    return start, end


def where(start: float, end: float, spans: list[Span], config: TvqaPreparation) -> str:
    """The moment as the question states it: `FROM to TO` in percent of the segments."""
    length = spans[-1].end - spans[0].start
    percents = [int(100 * ((seconds - spans[0].start) / length)) for seconds in (start, end)]
    if config.clamp_moment:
        percents = [min(max(percent, 0), 100) for percent in percents]
    return f"{percents[0]} to {percents[1]}"


def _picture(clip: Clip, span: Span, last: int) -> bytes:
    """The frame at the middle of a segment, or the nearest one that there is."""
    wanted = min(max(round(FRAMES_PER_SECOND * span.middle) + 1, 1), last)
    path = clip.frames[nearest(sorted(clip.frames), wanted)]
    try:
        data = path.read_bytes()
    except OSError:
        raise QuestionError(QuestionOutcome.IMAGE_MISSING, f"there is no frame {str(path)!r}") from None
    return jpeg(open_picture(data, path.name))


def nearest(numbers: list[int], wanted: int) -> int:
    """The number closest to `wanted`, the smaller of two; `numbers` are sorted."""
    at = bisect.bisect_left(numbers, wanted)
    return min(numbers[max(at - 1, 0) : at + 1], key=lambda number: (abs(number - wanted), number))
