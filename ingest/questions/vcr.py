"""Prepare one VCR question: objects are named in the texts and drawn into the image and its mirror image.

The defaults follow the data set's definition; `VcrPreparation.published` reproduces the released preparation, including
its known defects (docs/spec/finetune_data.md 2).
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
"""Maximum number of objects of an image; those of the data set have fewer than a hundred."""

_OUTSIDE = 16
"""Pixels that a box may extend beyond the image: more than the width of an outline, so that none moves inside."""

_SIDES = re.compile(r"\b(?:left|right)\b", re.IGNORECASE)

Text = list[Any] | str
"""Tokens, each a string or a list of object indices; or the whole text as a string."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class VcrQuestion:
    """The content of the files: the line, the bytes of the image, and its objects with their boxes."""

    line: dict[str, Any]
    image: bytes
    names: tuple[str, ...]
    boxes: tuple[Box, ...]
    width: float
    """Width of the image that the boxes refer to."""


@dataclass
class _Names:
    """The names of the objects of one question; an object is named when it is first mentioned."""

    classes: Sequence[str]
    most: int | None
    registered: dict[int, str] = field(default_factory=dict)
    mentioned: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        counts = Counter(self.classes)
        self.registered |= {i: f"the {name}" for i, name in enumerate(self.classes) if counts[name] == 1}

    def of(self, mention: list[int]) -> str:
        """Return the joined names of a mention."""
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
    """Read the files of a question from the official folder `data`. Raises `QuestionError` naming a missing file."""
    folder = Path(data) / IMAGES
    image, metadata = (path_in(folder, line, name) for name in ("img_fn", "metadata_fn"))
    if not is_file(image):
        raise QuestionError(QuestionOutcome.IMAGE_MISSING, f"there is no image {str(image)[:200]!r}")
    if not is_file(metadata):
        raise QuestionError(QuestionOutcome.METADATA_MISSING, f"there is no metadata {str(metadata)[:200]!r}")
    return VcrQuestion(line, read_file(image, QuestionOutcome.IMAGE_UNREADABLE), *_read_metadata(metadata))


def _read_metadata(path: Path) -> tuple[tuple[str, ...], tuple[Box, ...], float]:
    """Return the objects of an image, their boxes, and the width that the boxes refer to. Raises `QuestionError`."""
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
    return tuple(names), tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes), width


def prepare(
    question: VcrQuestion, tokenizer: Tokenizer, labelled: bool = True, config: VcrPreparation | None = None
) -> list[VcrRecord]:
    """Return the record of a question, or without labels four records, one per answer that rationales depend on.

    Raises `QuestionError` for a line that is not valid.
    """
    config = config or VcrPreparation()
    line = question.line
    names = _Names(question.names, None if config.all_names else _MOST_NAMES)
    text = _write_out(field_of(line, "question", (list, str)), names)
    if not text:
        raise QuestionError(QuestionOutcome.BAD_LINE, "the field 'question' is empty; write a text")
    answers, rationales = (_options(line, name, names) for name in ("answer_choices", "rationale_choices"))
    if labelled:
        # Training needs distinct options; a leaderboard requires an answer to every question.
        check_options(answers, "answer_choices")
        check_options(rationales, "rationale_choices")
    correct = label(line, "answer_label", CHOICES, labelled), label(line, "rationale_label", CHOICES, labelled)
    plain = open_picture(question.image, str(line["img_fn"]))
    image = jpeg(_draw(plain, _boxes(question, names, plain.width, config), mirrored=False))
    mirrored = image
    if labelled and not _mentions_side([text, *answers, *rationales], config):
        canvas = plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if config.mirror_pixels else plain
        mirrored = jpeg(_draw(canvas, _boxes(question, names, plain.width, config), mirrored=True))
    query, options = encode(tokenizer, text), encode_all(tokenizer, answers)
    reasons = encode_all(tokenizer, rationales)
    annotation = name_of(line, "annot_id")
    conditions = [correct[0]] if labelled else range(CHOICES)
    return [
        VcrRecord(
            id=annotation if labelled else f"{annotation}-qar-conditioned_on_a{answer}",
            image=image,
            mirrored=mirrored,
            answer=Choice(query, options, correct[0]),
            rationale=Choice(encode(tokenizer, f"{text} Answer: {answers[answer]}"), reasons, correct[1]),
        )
        for answer in conditions
    ]


def colour(name: str) -> tuple[int, int, int]:
    """Return the colour of objects of this name (docs/spec/finetune_data.md 2.4)."""
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
            # The colon ends a separator in the model's input, so no text may contain one.
            words.append(token if token == "Answer:" else token.replace(":", " "))
        else:
            raise QuestionError(
                QuestionOutcome.BAD_LINE, f"the text contains {str(token)[:60]!r}, neither a word nor objects"
            )
    return repair(detokenise(words))


def _mentions_side(texts: list[str], config: VcrPreparation) -> bool:
    if config.sides_as_words:
        return any(_SIDES.search(text) for text in texts)
    return any(side in text for text in texts for side in ("left", "right"))


def _boxes(question: VcrQuestion, names: _Names, width: int, config: VcrPreparation) -> list[tuple[Box, str]]:
    """Return the boxes in pixels of the stored image, with the names of their objects."""
    scale = width / question.width
    boxes: list[tuple[Box, str]] = []
    for i in sorted(names.registered if config.draw_unmentioned else names.mentioned):
        x1, y1, x2, y2 = question.boxes[i]
        boxes.append(((scale * x1, scale * y1, scale * x2, scale * y2), names.registered[i]))
    return boxes


def _draw(image: Image.Image, boxes: list[tuple[Box, str]], mirrored: bool) -> Image.Image:
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
