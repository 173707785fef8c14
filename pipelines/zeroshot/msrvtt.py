"""MSRVTT-QA: questions, rewritten as statements with a blank, about clips of some seconds (docs/spec/training.md 13.3).

The folder holds `train_qa.json` and `test_qa.json`; `test_infill.json` has the same items with a `statement` (or
`infill`) whose one `_` is the blank, as a language model rewrote the question. Videos are `video7010.mp4`.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from model.config import MASK_TEXT
from pipelines.zeroshot.benchmark import Benchmark, Question, chunks, needed, read_json, shares

BLANK = "_"


@dataclass(frozen=True)
class Msrvtt:
    """MSRVTT-QA."""

    annotations: str
    """The folder of train_qa.json and test_infill.json."""
    vocabulary: int = 2000
    """Answers as frequent as the one of this rank are options; the published numbers used 1000."""
    seconds: float = 3.0
    """Length of a segment."""

    def load(self) -> Benchmark:
        """Questions and options. Raises `UsageError` naming a file or item that does not fit."""
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
    """The most frequent answers: all at least as frequent as the one of `rank`, most frequent first."""
    counts = Counter(str(needed(item, "answer", "an item of train_qa.json")) for item in items)
    ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
    least = counts[ordered[min(rank, len(ordered)) - 1]] if ordered else 0
    return [answer for answer in ordered if counts[answer] >= least]


def statement(text: str) -> str:
    """A prompt from a statement with exactly one blank, else nothing."""
    return text.replace(BLANK, MASK_TEXT) if text.count(BLANK) == 1 else ""
