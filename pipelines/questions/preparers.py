"""Convert one line of a question data set into records; one class per task, each a thin shell around `ingest`.

Preparers are small values that are sent to the child processes of workers, which open tokenizers and import the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ingest.questions.preparation import ChoicesPreparation, TvqaPreparation, VcrPreparation
from shards.tokenizer import load_tokenizer

Records = list[tuple[str, bytes]]
"""Ids and serialised records."""


class Preparer(Protocol):
    """The task-specific part of a question job."""

    @property
    def task(self) -> str:
        """The name of the task."""
        ...

    @property
    def config(self) -> Any:
        """The configuration of the preparation, a dataclass."""
        ...

    @property
    def segments(self) -> int:
        """The number of images in a record."""
        ...

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """Return a function of a line and its default name that returns records or raises `QuestionError`."""
        ...

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """Return the id of a line, whether or not it can be prepared; `name` if it has none."""
        ...


def _id_or(value: Any, default: str) -> str:
    return str(value) if isinstance(value, str | int) else default


@dataclass(frozen=True)
class VcrPreparer:
    """The preparer of VCR: lines of `train.jsonl` and their images in `data`."""

    data: str
    tokenizer: str
    labelled: bool
    config: VcrPreparation
    task: str = "vcr"
    segments: int = 1

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """Return the id of the annotation."""
        return _id_or(line.get("annot_id"), name)

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """Return the function that prepares a line."""
        from ingest.questions import vcr

        vocabulary = load_tokenizer(self.tokenizer)

        def prepare(line: dict[str, Any], name: str) -> Records:
            del name
            records = vcr.prepare(vcr.read_question(self.data, line), vocabulary, self.labelled, self.config)
            return [(record.id, record.serialize()) for record in records]

        return prepare


@dataclass(frozen=True)
class TvqaPreparer:
    """The preparer of TVQA: lines of `tvqa_train.jsonl` and their clips in `data`."""

    data: str
    tokenizer: str
    labelled: bool
    config: TvqaPreparation
    task: str = "tvqa"
    segments: int = 7

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """Return the numbers of question and clip."""
        return f"{_id_or(line.get('qid'), name)}~{_id_or(line.get('vid_name'), '')}"

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """Return the function that prepares a line."""
        from ingest.questions import tvqa

        vocabulary = load_tokenizer(self.tokenizer)

        def prepare(line: dict[str, Any], name: str) -> Records:
            del name
            clip = tvqa.read_clip(self.data, line, self.config.rate)
            record = tvqa.prepare(line, clip, vocabulary, self.labelled, self.config)
            return [(record.id, record.serialize(self.segments))]

        return prepare


@dataclass(frozen=True)
class ChoicesPreparer:
    """The preparer of custom questions: lines of a JSONL file with paths relative to `folder`."""

    folder: str
    tokenizer: str
    labelled: bool
    config: ChoicesPreparation
    task: str = "choices"

    @property
    def segments(self) -> int:
        """The number of images in a record."""
        return self.config.segments

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """Return the id of the line."""
        return _id_or(line.get("id"), name)

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """Return the function that prepares a line."""
        from ingest.questions import choices

        vocabulary = load_tokenizer(self.tokenizer)

        def prepare(line: dict[str, Any], name: str) -> Records:
            record = choices.prepare(line, self.folder, name, vocabulary, self.labelled, self.config)
            return [(record.id, record.serialize(self.segments))]

        return prepare
