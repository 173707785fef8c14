"""One question of a person's own data set: a line of JSON that names a picture or a video, and its options.

`{"video": "kitchen.mp4", "question": "What is cut?", "answers": ["an onion", "bread"], "label": 0, "start": 3.5,
"end": 9, "subtitle": "now cut it"}`; `image` instead of `video`, and all after `label` may be missing or null.
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
    """The record of a question; paths are those in `folder`, and `name` is its id unless the line has one.

    Raises `QuestionError` for a line that cannot be used.
    """
    # Tables that were written as JSON lines have a null in each empty field.
    line = {name: value for name, value in line.items() if value is not None}
    texts = field(line, "answers", list)
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise QuestionError(QuestionOutcome.BAD_LINE, f"answers is {str(texts)[:60]!r}; a choice has at least 2 texts")
    if config.options is not None and len(texts) != config.options:
        raise QuestionError(
            QuestionOutcome.BAD_LINE, f"there are {len(texts)} answers and the data set has {config.options} each"
        )
    check_options(texts, "answers")
    question, identifier = text_of(line, "question"), id_of(line) or name
    right = label(line, "label", len(texts), labelled)
    spoken = encode(tokenizer, plain(field(line, "subtitle", str))) if "subtitle" in line else _NO_TOKENS
    given = [kind for kind in ("image", "video") if kind in line]
    if len(given) != 1:
        raise QuestionError(QuestionOutcome.BAD_LINE, "a question has one of image and video")
    if str(line[given[0]])[:5].lower() == "data:":
        raise QuestionError(
            QuestionOutcome.IMAGE_MISSING, f"{given[0]} is a data: address, not a path; write the picture to a file"
        )
    path = path_in(folder, line, given[0])
    if not is_file(path):
        raise QuestionError(QuestionOutcome.IMAGE_MISSING, f"there is no {given[0]} {str(path)[:200]!r}")
    if given == ["image"]:
        pictures, sounds, magic = (
            [jpeg(open_picture(read_file(path, QuestionOutcome.IMAGE_UNREADABLE), path.name))],
            None,
            1.0,
        )
    else:
        pictures, sounds, magic = _watch(str(path), line, config)
    if config.sound and sounds is None:
        raise QuestionError(
            QuestionOutcome.SOUND_MISSING, f"{path.name!r} is a picture; prepare pictures without sound"
        )
    subtitles = [spoken, *[_NO_TOKENS] * (len(pictures) - 1)]
    return ClipRecord(
        id=identifier,
        query=encode(tokenizer, question),
        options=encode_all(tokenizer, texts),
        label=right,
        segments=tuple(
            ClipSegment(picture, sound, words)
            for picture, sound, words in zip(pictures, sounds or [None] * len(pictures), subtitles, strict=True)
        ),
        magic=magic,
    )


def id_of(line: dict[str, Any]) -> str | None:
    """The id that a line states, a text or a whole number; `None` if it states none. Raises `QuestionError`."""
    value = line.get("id")
    if value is None:
        return None
    return name_of(line, "id") if isinstance(value, str) else str(field(line, "id", int))


def _watch(
    path: str, line: dict[str, Any], config: ChoicesPreparation
) -> tuple[list[bytes], list[bytes] | None, float]:
    """Pictures, and if wanted the sound, of the segments of a video that the question is about."""
    try:
        duration = media.probe(path).duration
        if duration is None:
            raise MediaError(Outcome.DURATION_UNKNOWN, f"{Path(path).name} does not say how long it is")
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
    found: list[np.ndarray] = []
    for frame in media.frames(path, times):
        if frame is None and not found:
            raise MediaError(Outcome.FRAME_MISSING, f"{Path(path).name} has no frame at {times[0]:.2f} seconds")
        found.append(found[-1] if frame is None else frame)
    return found


def _moment(line: dict[str, Any], duration: float) -> tuple[float, float]:
    start, end = line.get("start", 0.0), line.get("end", duration)
    for name, value in (("start", start), ("end", end)):
        # Integers of JSON have any length.
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < math.inf:
            raise QuestionError(QuestionOutcome.BAD_LINE, f"{name} is {str(value)[:60]!r}, not a number of seconds")
    if not 0 <= start < min(end, duration):
        raise QuestionError(
            QuestionOutcome.TIMES_OUTSIDE,
            f"{start!s:.30} to {end!s:.30} seconds lie outside the {duration:.1f} seconds of the video",
        )
    return float(start), float(min(end, duration))
