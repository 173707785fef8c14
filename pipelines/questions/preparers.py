"""What turns one line of a data set of questions into records, one class a task, each a thin shell around `ingest`.

They are small values that travel to the children of workers, which open vocabularies and import what prepares.
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
    """What a job of questions needs to know of its task."""

    task: str
    config: Any
    segments: int
    """Pictures that fit a record."""

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """The function of a line and of the name it gets if it has none; raises `QuestionError`."""

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """What a line is known by, whether or not it can be prepared; `name` if it does not state an id."""


def _stated(value: Any, otherwise: str) -> str:
    return str(value) if isinstance(value, str | int) else otherwise


@dataclass(frozen=True)
class VcrPreparer:
    """Lines of `train.jsonl` and their pictures under `data`."""

    data: str
    tokenizer: str
    labelled: bool
    config: VcrPreparation
    task: str = "vcr"
    segments: int = 1

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """The id of the annotation."""
        return _stated(line.get("annot_id"), name)

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """The function that prepares a line."""
        from ingest.questions import vcr

        vocabulary = load_tokenizer(self.tokenizer)

        def prepare(line: dict[str, Any], name: str) -> Records:
            del name
            found = vcr.prepare(vcr.read_question(self.data, line), vocabulary, self.labelled, self.config)
            return [(record.id, record.serialize()) for record in found]

        return prepare


@dataclass(frozen=True)
class TvqaPreparer:
    """Lines of `tvqa_train.jsonl` and the clips under `data`."""

    data: str
    tokenizer: str
    labelled: bool
    config: TvqaPreparation
    task: str = "tvqa"
    segments: int = 7

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """The numbers of question and clip."""
        return f"{_stated(line.get('qid'), name)}~{_stated(line.get('vid_name'), '')}"

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """The function that prepares a line."""
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
    """Lines of a JSONL of own questions; the paths in them are those in `folder`."""

    folder: str
    tokenizer: str
    labelled: bool
    config: ChoicesPreparation
    task: str = "choices"

    @property
    def segments(self) -> int:
        """Pictures that fit a record."""
        return self.config.segments

    def id_of(self, line: dict[str, Any], name: str) -> str:
        """The id that the line states."""
        return _stated(line.get("id"), name)

    def open(self) -> Callable[[dict[str, Any], str], Records]:
        """The function that prepares a line."""
        from ingest.questions import choices

        vocabulary = load_tokenizer(self.tokenizer)

        def prepare(line: dict[str, Any], name: str) -> Records:
            record = choices.prepare(line, self.folder, name, vocabulary, self.labelled, self.config)
            return [(record.id, record.serialize(self.segments))]

        return prepare
