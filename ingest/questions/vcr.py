"""One VCR question: objects named and drawn, texts written out, a mirrored picture beside the plain one.

The defaults do what the data set means; `VcrPreparation.published` repeats the released preparation, its known defects
included (docs/spec/finetune_data.md 2).
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from ingest.questions.detokenise import detokenise, repair
from ingest.questions.pictures import jpeg, open_picture
from ingest.questions.preparation import VcrPreparation
from ingest.questions.question import (
    QuestionError,
    QuestionOutcome,
    check_options,
    encode,
    encode_all,
    is_file,
    label,
    name_of,
    path_in,
    read_file,
)
from ingest.questions.question import field as field_of
from shards.records.vcr import CHOICES, Choice, VcrRecord

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IMAGES = "vcr1images"
_FILL_ALPHA = 32
_OUTLINE_WIDTH = 2
_MOST_NAMES = 2
_MOST_OBJECTS = 1000
"""Objects of one picture; the data set's have fewer than a hundred."""

_OUTSIDE = 16
"""Pixels that a box may reach beyond the picture: more than its outline is wide, so that no outline moves inside."""

_SIDES = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)

Text = list[Any] | str
"""Tokens, each a string or a list of the indices of objects; or all of it as one string."""


@dataclass(frozen=True)
class VcrQuestion:
    """What lies in the files: the line, the picture's bytes, and its objects with their boxes in `width` pixels."""

    line: dict[str, Any]
    image: bytes
    names: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    width: float


@dataclass
class _Names:
    """What the objects of one question are called; an object gets its name when it is first mentioned."""

    classes: Sequence[str]
    most: int | None
    registered: dict[int, str] = field(default_factory=dict)
    mentioned: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        counts = Counter(self.classes)
        self.registered |= {i: f"the {name}" for i, name in enumerate(self.classes) if counts[name] == 1}

    def of(self, mention: list[int]) -> str:
        """The names of a mention, joined."""
        return " and ".join(self._name(index) for index in mention[: self.most])

    def _name(self, index: int) -> str:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(self.classes):
            raise QuestionError(
                QuestionOutcome.BAD_LINE,
                f"the text mentions object {str(index)[:60]} and there are {len(self.classes)}",
            )
        self.mentioned.add(index)
        if index not in self.registered:
            kind = self.classes[index]
            number = self.classes[: index + 1].count(kind)
            self.registered[index] = f"{kind[:1].upper()}{kind[1:]} {number}"
        return self.registered[index]


def read_question(data: str, line: dict[str, Any]) -> VcrQuestion:
    """The files of a question under the official folder `data`. Raises `QuestionError` naming what is missing."""
    folder = Path(data) / IMAGES
    place, about = (path_in(folder, line, name) for name in ("img_fn", "metadata_fn"))
    if not is_file(place):
        raise QuestionError(QuestionOutcome.IMAGE_MISSING, f"there is no image {str(place)[:200]!r}")
    if not is_file(about):
        raise QuestionError(QuestionOutcome.METADATA_MISSING, f"there is no metadata {str(about)[:200]!r}")
    return VcrQuestion(line, read_file(place, QuestionOutcome.IMAGE_UNREADABLE), *_read_metadata(about))


def _read_metadata(path: Path) -> tuple[tuple[str, ...], tuple[tuple[float, float, float, float], ...], float]:
    """The objects of a picture, their boxes, and the width that the boxes refer to. Raises `QuestionError`."""
    content = read_file(path, QuestionOutcome.METADATA_UNREADABLE)
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError):
        raise QuestionError(QuestionOutcome.METADATA_UNREADABLE, f"{str(path)!r} is not JSON") from None
    try:
        names, boxes = metadata["names"], metadata["boxes"]
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ValueError("list of 'names'")
        boxes = tuple(tuple(float(side) for side in box[:4]) for box in boxes)
        width = float(metadata["width"])
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise QuestionError(QuestionOutcome.METADATA_UNREADABLE, f"{str(path)!r} has no usable {error}") from None
    if len(boxes) != len(names) or len(names) > _MOST_OBJECTS or any(len(box) != 4 for box in boxes):
        raise QuestionError(
            QuestionOutcome.METADATA_UNREADABLE, f"{str(path)!r} has {len(names)} names and {len(boxes)} boxes"
        )
    if not 0 < width < math.inf or any(math.isnan(side) for box in boxes for side in box):
        raise QuestionError(
            QuestionOutcome.METADATA_UNREADABLE, f"{str(path)!r} has a width or a side of a box that is not a number"
        )
    return tuple(names), boxes, width


def prepare(
    question: VcrQuestion, tokenizer: Tokenizer, labelled: bool = True, config: VcrPreparation | None = None
) -> list[VcrRecord]:
    """The records of a question: one, or without labels four, each judging the rationales under another answer.

    Raises `QuestionError` for a line that cannot be used.
    """
    config = config or VcrPreparation()
    line = question.line
    names = _Names(question.names, None if config.all_names else _MOST_NAMES)
    asked = _write_out(field_of(line, "question", (list, str)), names)
    if not asked:
        raise QuestionError(QuestionOutcome.BAD_LINE, "the field 'question' is empty; write a text")
    answers, rationales = (_options(line, name, names) for name in ("answer_choices", "rationale_choices"))
    if labelled:
        # Which of two equal options is right cannot be learned; a leaderboard wants an answer all the same.
        check_options(answers, "answer_choices")
        check_options(rationales, "rationale_choices")
    right = label(line, "answer_label", CHOICES, labelled), label(line, "rationale_label", CHOICES, labelled)
    plain = open_picture(question.image, str(line["img_fn"]))
    image = jpeg(_draw(plain, _boxes(question, names, plain.width, config), mirrored=False))
    mirrored = image
    if labelled and not _says_side([asked, *answers, *rationales], config):
        canvas = plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if config.mirror_pixels else plain
        mirrored = jpeg(_draw(canvas, _boxes(question, names, plain.width, config), mirrored=True))
    query, options = encode(tokenizer, asked), encode_all(tokenizer, answers)
    reasons = encode_all(tokenizer, rationales)
    annotation = name_of(line, "annot_id")
    conditions = [right[0]] if labelled else range(CHOICES)
    return [
        VcrRecord(
            id=annotation if labelled else f"{annotation}-qar-conditioned_on_a{given}",
            image=image,
            mirrored=mirrored,
            answer=Choice(query, options, right[0]),
            rationale=Choice(encode(tokenizer, f"{asked} Answer: {answers[given]}"), reasons, right[1]),
        )
        for given in conditions
    ]


def colour(name: str) -> tuple[int, int, int]:
    """The colour that an object of this name always has (docs/spec/finetune_data.md 2.4)."""
    number = int.from_bytes(hashlib.sha256(name.encode(errors="replace")).digest(), "big")
    hue, saturation = (number % 1024) / 1024, (number % 1023) / 1023
    lightness = 0.4 + 0.6 * ((number % 1025) / 1025)
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return int(255 * red), int(255 * green), int(255 * blue)


def _options(line: dict[str, Any], name: str, names: _Names) -> list[str]:
    texts = field_of(line, name, list)
    if len(texts) != CHOICES:
        raise QuestionError(QuestionOutcome.BAD_LINE, f"{name} has {len(texts)} options instead of {CHOICES}")
    return [_write_out(text, names) for text in texts]


def _write_out(text: Text, names: _Names) -> str:
    if isinstance(text, str):
        return text.replace(":", " ").strip()
    if not isinstance(text, list):
        raise QuestionError(QuestionOutcome.BAD_LINE, f"a text is {str(text)[:60]!r}, neither tokens nor a string")
    words = []
    for token in text:
        if isinstance(token, list):
            words.append(names.of(token))
        elif isinstance(token, str):
            # The colon ends a separator in the model's input, so that no text may hold one.
            words.append(token if token == "Answer:" else token.replace(":", " "))
        else:
            raise QuestionError(
                QuestionOutcome.BAD_LINE, f"the text holds {str(token)[:60]!r}, neither a word nor objects"
            )
    return repair(detokenise(words))


def _says_side(texts: list[str], config: VcrPreparation) -> bool:
    if config.sides_as_words:
        return any(_SIDES.search(text) for text in texts)
    return any(side in text for text in texts for side in ("left", "right"))


def _boxes(
    question: VcrQuestion, names: _Names, width: int, config: VcrPreparation
) -> list[tuple[tuple[float, float, float, float], str]]:
    """Boxes in pixels of the stored picture, with the names of their objects."""
    scale = width / question.width
    drawn = sorted(names.registered if config.draw_unmentioned else names.mentioned)
    return [(tuple(scale * side for side in question.boxes[i]), names.registered[i]) for i in drawn]


def _draw(
    image: Image.Image, boxes: list[tuple[tuple[float, float, float, float], str]], mirrored: bool
) -> Image.Image:
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn, "RGBA")
    for (x1, y1, x2, y2), name in boxes:
        if mirrored:
            x1, x2 = image.width - x2, image.width - x1
        x1, x2 = (min(max(x, -_OUTSIDE), image.width + _OUTSIDE) for x in (x1, x2))
        y1, y2 = (min(max(y, -_OUTSIDE), image.height + _OUTSIDE) for y in (y1, y2))
        corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        rgb = colour(name)
        pen.rectangle(corners, fill=(*rgb, _FILL_ALPHA), outline=(*rgb, 255), width=_OUTLINE_WIDTH)
    return drawn
