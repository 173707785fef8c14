"""LSMDC fill in the blank: predict a missing word in the description of a film clip.

Annotations are tab-separated as distributed: the clip's name in the first column, the sentence with `_____` and the
missing word in the last two columns. The options are the missing words of the training file.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from model.config import MASK_TEXT
from pipelines.zeroshot.benchmark import Benchmark, Question, chunks, shares
from shards.storage.errors import UsageError

BLANK = "_____"


@dataclass(frozen=True)
class Lsmdc:
    """LSMDC fill in the blank."""

    questions: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The annotations of the test split."""
    training: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The annotations of the training split, whose answers are the options."""
    seconds: float = 5.0
    """Length of a segment, in seconds."""

    def load(self) -> Benchmark:
        """Return the questions and options. Raises `UsageError` naming an invalid line."""
        options = dict.fromkeys(answer for _, _, answer in rows(self.training))
        show = functools.partial(chunks, seconds=self.seconds)
        questions = [
            Question(f"{number}", name, show, prompt(sentence), answer)
            for number, (name, sentence, answer) in enumerate(rows(self.questions))
        ]
        unknown = sum(q.answer not in options for q in questions)
        remark = f"{unknown} answers are not among the {len(options)} options and cannot be right"
        return Benchmark(questions, tuple(options), shares(questions, (1, 5)), (remark,))


def rows(path: str) -> list[tuple[str, str, str]]:
    """Return (clip, sentence, answer) of every line. Raises `UsageError`."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path!r} cannot be read: {error}") from None
    annotations = []
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if len(columns) < 3 or BLANK not in columns[-2]:
            if number == 1:
                continue  # a header
            raise UsageError(f"line {number} of {path!r} has no sentence with {BLANK} before its answer")
        annotations.append((columns[0], columns[-2], columns[-1].strip()))
    return annotations


def prompt(sentence: str) -> str:
    """Return the sentence with a mask in place of its blank, or an empty prompt if it has several blanks."""
    return sentence.replace(BLANK, MASK_TEXT) if sentence.count(BLANK) == 1 else ""
