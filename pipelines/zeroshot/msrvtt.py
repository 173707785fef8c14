"""MSRVTT-QA: answer questions, rewritten as statements with a blank, about short clips (docs/spec/training.md 13.3).

The folder of annotations contains `train_qa.json` and `test_infill.json`: the items of `test_qa.json` with a
`statement` (or `infill`), the question rewritten by a language model, with one `_` as the blank. Videos are named
`video7010.mp4`.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from model.config import MASK_TEXT
from pipelines.zeroshot.benchmark import Benchmark, Question, chunks, needed, read_json, shares

BLANK = "_"


@dataclass(frozen=True)
class Msrvtt:
    """MSRVTT-QA."""

    annotations: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The folder of train_qa.json and test_infill.json."""
    vocabulary: int = 2000
    """Number of most frequent answers that are options, including ties; the published numbers used 1000."""
    seconds: float = 3.0
    """Length of a segment, in seconds."""

    def load(self) -> Benchmark:
        """Return the questions and options. Raises `UsageError` naming an invalid file or item."""
        folder = Path(self.annotations)
        options = answers(read_json(folder / "train_qa.json"), self.vocabulary)
        show = functools.partial(chunks, seconds=self.seconds)
        questions = []
        for item in read_json(folder / "test_infill.json"):
            where = f"an item of test_infill.json (id {item.get('id')})"
            video = f"video{needed(item, 'video_id', where)}"
            text = statement(str(item.get("statement", item.get("infill", ""))))
            questions.append(Question(str(needed(item, "id", where)), video, show, text, needed(item, "answer", where)))
        without = sum(not q.prompt for q in questions)
        unknown = sum(q.answer not in options for q in questions)
        remarks = (
            f"{without} of {len(questions)} questions have no statement with one blank and count as wrong",
            f"{unknown} answers are not among the {len(options)} options and cannot be right",
        )
        return Benchmark(questions, tuple(options), shares(questions, (1, 5, 10)), remarks)


def answers(items: list[dict], rank: int) -> list[str]:
    """Return all answers that are at least as frequent as the one of `rank`, most frequent first."""
    counts = Counter(str(needed(item, "answer", "an item of train_qa.json")) for item in items)
    ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
    least = counts[ordered[min(rank, len(ordered)) - 1]] if ordered else 0
    return [answer for answer in ordered if counts[answer] >= least]


def statement(text: str) -> str:
    """Return the prompt of a statement with exactly one blank, else an empty prompt."""
    return text.replace(BLANK, MASK_TEXT) if text.count(BLANK) == 1 else ""
