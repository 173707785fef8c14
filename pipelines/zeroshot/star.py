"""STAR: four answers to a question about a situation in a part of a video.

`STAR_val.json` as distributed: `question_id`, `question`, `answer`, `video_id`, `start`, `end` and `choices`. The kind
of a question (Interaction, Sequence, Prediction, Feasibility) is the first part of its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.config import MASK_TEXT
from pipelines.zeroshot.benchmark import Benchmark, Intervals, Question, chunks, needed, read_json, shares


@dataclass(frozen=True)
class Star:
    """STAR situated reasoning."""

    questions: str
    """STAR_val.json."""
    seconds: float = 5.0
    prompt: str = "{question} <|MASK|>"
    """How a question becomes a prompt."""

    def load(self) -> Benchmark:
        """Questions with their own options. Raises `UsageError` naming an item that does not fit."""
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
