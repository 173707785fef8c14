"""STAR: choose one of four answers to a question about a situation in a part of a video.

The questions are `STAR_val.json` as distributed, with `question_id`, `question`, `answer`, `video_id`, `start`, `end`
and `choices`. The kind of a question (Interaction, Sequence, Prediction, Feasibility) is the first part of its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from model.config import MASK_TEXT
from pipelines.zeroshot.benchmark import Benchmark, Intervals, Question, chunks, needed, read_json, shares


@dataclass(frozen=True)
class Star:
    """STAR situated reasoning."""

    questions: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The questions, STAR_val.json."""
    seconds: float = 5.0
    """Length of a segment, in seconds."""
    prompt: Annotated[str, tyro.conf.arg(metavar="PROMPT")] = "{question} <|MASK|>"
    """The prompt, with {question} in place of the question."""

    def load(self) -> Benchmark:
        """Return the questions with their options. Raises `UsageError` naming an invalid item."""
        questions = []
        for item in read_json(Path(self.questions)):
            where = f"question {item.get('question_id')}"
            options = tuple(needed(choice, "choice", where) for choice in needed(item, "choices", where))
            number = str(needed(item, "question_id", where))
            questions.append(
                Question(
                    number,
                    str(needed(item, "video_id", where)),
                    self._show(float(needed(item, "start", where)), float(needed(item, "end", where))),
                    self.prompt.format(question=needed(item, "question", where)).replace("[MASK]", MASK_TEXT),
                    needed(item, "answer", where),
                    kind=number.split("_")[0],
                    options=tuple(dict.fromkeys(options)),
                )
            )
        return Benchmark(questions, None, shares(questions, (1,)))

    def _show(self, start: float, end: float):
        def show(length: float) -> Intervals:
            return [(start + a, start + b) for a, b in chunks(min(end, length) - start, self.seconds)]

        return show
