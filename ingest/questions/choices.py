"""Prepare one question of a custom data set: a line of JSON that names an image or a video, and its options.

`{"video": "kitchen.mp4", "question": "What is cut?", "answers": ["an onion", "bread"], "label": 0, "start": 3.5,
"end": 9, "subtitle": "now cut it"}`; or `image` instead of `video`; the fields after `label` are optional or null.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ingest import media
from ingest.media import MediaError
from ingest.questions.clips import Span, plain, sample_rate, spectrograms, time_grid
from ingest.questions.pictures import fitted, jpeg, open_picture
from ingest.questions.preparation import ChoicesPreparation
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
    path_in,
    read_file,
    text_of,
)
from shards.outcomes import Outcome
from shards.records.choices import ClipRecord, ClipSegment

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NO_TOKENS = np.zeros(0, np.int64)


def prepare(
    line: dict[str, Any], folder: str, name: str, tokenizer: Tokenizer, labelled: bool, config: ChoicesPreparation
) -> ClipRecord:
    """Return the record of a question; paths are relative to `folder`, and `name` is its id unless the line has one.

    Raises `QuestionError` for a line that is not valid.
    """
    # Tables that were written as JSON lines have a null in each empty field.
    line = {name: value for name, value in line.items() if value is not None}
    texts = field(line, "answers", list)
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise QuestionError(QuestionOutcome.BAD_LINE, f"answers is {str(texts)[:60]!r}; it must have at least 2 texts")
    if config.options is not None and len(texts) != config.options:
        raise QuestionError(
            QuestionOutcome.BAD_LINE, f"there are {len(texts)} answers and the data set has {config.options} each"
        )
    check_options(texts, "answers")
    question, identifier = text_of(line, "question"), id_of(line) or name
    correct = label(line, "label", len(texts), labelled)
    subtitle = encode(tokenizer, plain(field(line, "subtitle", str))) if "subtitle" in line else _NO_TOKENS
    kinds = [kind for kind in ("image", "video") if kind in line]
    if len(kinds) != 1:
        raise QuestionError(QuestionOutcome.BAD_LINE, "a question has one of image and video")
    kind = kinds[0]
    if str(line[kind])[:5].lower() == "data:":
        raise QuestionError(
            QuestionOutcome.IMAGE_MISSING, f"{kind} is a data: address, not a path; write the picture to a file"
        )
    path = path_in(folder, line, kind)
    if not is_file(path):
        raise QuestionError(QuestionOutcome.IMAGE_MISSING, f"there is no {kind} {str(path)[:200]!r}")
    if kind == "image":
        pictures, sounds, magic = (
            [jpeg(open_picture(read_file(path, QuestionOutcome.IMAGE_UNREADABLE), path.name))],
            None,
            1.0,
        )
    else:
        pictures, sounds, magic = _read_video(str(path), line, config)
    if config.sound and sounds is None:
        raise QuestionError(
            QuestionOutcome.SOUND_MISSING, f"{path.name!r} is a picture; prepare pictures without sound"
        )
    subtitles = [subtitle, *[_NO_TOKENS] * (len(pictures) - 1)]
    return ClipRecord(
        id=identifier,
        query=encode(tokenizer, question),
        options=encode_all(tokenizer, texts),
        label=correct,
        segments=tuple(
            ClipSegment(picture, sound, words)
            for picture, sound, words in zip(pictures, sounds or [None] * len(pictures), subtitles, strict=True)
        ),
        magic=magic,
    )


def id_of(line: dict[str, Any]) -> str | None:
    """Return the id of a line, a text or an integer, or `None` if it has none. Raises `QuestionError`."""
    value = line.get("id")
    if value is None:
        return None
    return name_of(line, "id") if isinstance(value, str) else str(field(line, "id", int))


def _read_video(
    path: str, line: dict[str, Any], config: ChoicesPreparation
) -> tuple[list[bytes], list[bytes] | None, float]:
    """Return the frames of the segments, their spectrograms with `config.sound`, and the magic number."""
    try:
        duration = media.probe(path).duration
        if duration is None:
            raise MediaError(Outcome.DURATION_UNKNOWN, f"{Path(path).name} does not state its duration")
        low, high = _moment(line, duration)
        spans = time_grid(low, high, low, high, config.segments)
        pictures = [jpeg(fitted(Image.fromarray(frame))) for frame in _frames(path, spans, duration)]
        if not config.sound:
            return pictures, None, 1.0
        with media.sound(path, sample_rate("true")) as track:
            return pictures, *spectrograms(track.read(0, track.length), spans, "true")
    except MediaError as error:
        raise QuestionError(QuestionOutcome.MEDIA_UNREADABLE, str(error)) from None


def _frames(path: str, spans: list[Span], duration: float) -> list[np.ndarray]:
    times = [min(max(span.middle, 0.0), duration) for span in spans]
    frames: list[np.ndarray] = []
    for frame in media.frames(path, times):
        if frame is None and not frames:
            raise MediaError(Outcome.FRAME_MISSING, f"{Path(path).name} has no frame at {times[0]:.2f} seconds")
        frames.append(frames[-1] if frame is None else frame)
    return frames


def _moment(line: dict[str, Any], duration: float) -> tuple[float, float]:
    start, end = line.get("start", 0.0), line.get("end", duration)
    for name, value in (("start", start), ("end", end)):
        # JSON integers have any length.
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < math.inf:
            raise QuestionError(QuestionOutcome.BAD_LINE, f"{name} is {str(value)[:60]!r}, not a number of seconds")
    if not 0 <= start < min(end, duration):
        raise QuestionError(
            QuestionOutcome.TIMES_OUTSIDE,
            f"{start!s:.30} to {end!s:.30} seconds are outside the {duration:.1f} seconds of the video",
        )
    return float(start), float(min(end, duration))
