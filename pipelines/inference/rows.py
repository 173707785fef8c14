"""Answer rows of questions as lines of JSON; consecutive rows about the same video share its encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model import inference
from model.inference import Answers, Use
from model.pretrained import Pretrained
from model.reserve import InputError
from pipelines.inference.clips import inputs, read_clip
from pipelines.inference.options import Part, check_options, check_prompts
from pipelines.inference.questions import Question
from shards.storage.errors import StorageError, UserError


def answer_rows(model: Pretrained, rows: list[Question], use: Use) -> Iterator[dict]:
    """Yield the line of each row, in order; consecutive rows about the same part of a video share its encoding.

    An exception for a row becomes its `error`. Raises `StorageError` if the disk is full or not accessible.
    """
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
            check_options(first.options)
            note = same_tokens_note(model, first.options)
            video = inputs(read_clip(first.video, Part(first.start, first.end)), model.config.grid)
        except Exception as error:  # noqa: BLE001
            yield from (_line(row, error=_sentence(error)) for row in group)
            continue
        for line in _answer(model, video, group, use):
            yield line | ({"note": note} if note else {})


def _answer(model: Pretrained, video: inference.VideoInputs, group: list[Question], use: Use) -> Iterator[dict]:
    """Yield the lines of rows about one part of a video with the same options."""
    try:
        check_prompts(row.prompt for row in group)
        answers = inference.answer_all(model, video, [row.prompt for row in group], group[0].options, use)
    except Exception as error:  # noqa: BLE001
        if len(group) == 1:
            yield _line(group[0], error=_sentence(error))
            return
        # One of several prompts may be invalid; answer each separately, so that only that one fails.
        for row in group:
            yield from _answer(model, video, [row], use)
        return
    yield from (_line(row, masks) for row, masks in zip(group, answers, strict=True))


def _sentence(error: Exception) -> str:
    """Return the error message of a row for an exception. Reraises it if the row did not cause it."""
    if isinstance(error, StorageError | MemoryError):
        raise error
    return str(error) if isinstance(error, UserError | InputError) else f"{type(error).__name__}: {error}"


def same_tokens_note(model: Pretrained, options: Sequence[str]) -> str:
    """Return a note that names options with the same tokens, which the model cannot distinguish; empty without any.

    Raises `InputError` for an option without tokens.
    """
    seen: dict[tuple[int, ...], str] = {}
    pairs = []
    for option in options:
        tokens = tuple(model.tokenizer.encode(option, add_special_tokens=False).ids[: model.config.span_length])
        if not tokens:
            raise InputError(f"option {option!r} has no tokens; give every option a text")
        other = seen.setdefault(tokens, option)
        if other != option:
            pairs.append(f"{option!r} like {other!r}")
    return f"the model cannot distinguish options with the same tokens: {', '.join(pairs)}" if pairs else ""


def _line(row: Question, masks: list[Answers] | None = None, error: str | None = None) -> dict:
    line = {"key": row.key(), "video": row.video, "prompt": row.prompt, "start": row.start, "end": row.end}
    if masks is None:
        return line | {"error": error}
    ranked = [
        [[option, round(float(p), 6)] for option, p in zip(answer.options, answer.probabilities, strict=True)]
        for answer in masks
    ]
    return line | {"answers": ranked}
