"""Rows of questions become lines of JSON; rows next to each other that share a video share its encoding."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.clip import ClipError
from model import inference
from model.inference import Answers, Use
from model.published import Pretrained
from model.reserve import InputError
from pipelines.ask_options import Part
from pipelines.inference.clips import inputs, read_clip
from pipelines.inference.questions import Question


def answer_rows(model: Pretrained, rows: list[Question], use: Use) -> Iterator[dict]:
    """The line of each row, in order; rows next to each other that share a part of a video share its encoding."""
    position = 0
    while position < len(rows):
        first = rows[position]
        group = [first]
        for row in rows[position + 1 :]:
            if (row.video, row.start, row.end, row.options) != (first.video, first.start, first.end, first.options):
                break
            group.append(row)
        position += len(group)
        try:
            video = inputs(read_clip(first.video, Part(first.start, first.end)), model.config.grid)
        except ClipError as error:
            yield from (_line(row, error=str(error)) for row in group)
            continue
        try:
            answers = inference.answer_all(model, video, [row.prompt for row in group], first.options, use)
        except InputError:
            # One prompt of several may be wrong; each is asked alone, so that only that one fails.
            yield from (_alone(model, video, row, use) for row in group)
            continue
        yield from (_line(row, masks) for row, masks in zip(group, answers, strict=True))


def _alone(model: Pretrained, video: inference.VideoInputs, row: Question, use: Use) -> dict:
    try:
        return _line(row, inference.answer_all(model, video, [row.prompt], row.options, use)[0])
    except InputError as error:
        return _line(row, error=str(error))


def _line(row: Question, masks: list[Answers] | None = None, error: str | None = None) -> dict:
    line = {"key": row.key(), "video": row.video, "prompt": row.prompt, "start": row.start, "end": row.end}
    if masks is None:
        return line | {"error": error}
    ranked = [
        [[option, round(float(p), 6)] for option, p in zip(answer.options, answer.probabilities, strict=True)]
        for answer in masks
    ]
    return line | {"answers": ranked}
