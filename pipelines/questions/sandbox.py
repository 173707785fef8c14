"""Prepare questions in a sandboxed subprocess: whatever a line or its media do ends that question and nothing else.

A worker keeps one child and hands it line after line. One that hangs, crashes or eats memory takes the child with it:
its outcome says so and the next line gets a new child.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ingest.questions.question import QuestionError, QuestionOutcome
from pipelines.questions.preparers import Preparer, Records
from pipelines.runner.limits import Limits
from pipelines.runner.sandbox import Child, disk_full
from shards.storage.errors import UserError

DECODER = "pipelines.questions.child"
"""The module that the child runs."""

_KEPT_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
"""Environment of the child: it keeps the memory of a picture for the next, which saves 4 ms of page faults for each."""

_SHOWN = 120


@dataclass(frozen=True)
class Request:
    """A line to prepare, how, and the name that it gets if it has none."""

    preparer: Preparer
    text: bytes
    name: str


@dataclass(frozen=True)
class Prepared:
    """How a line ended, with its records if it was prepared, and the seconds of CPU that it cost."""

    outcome: QuestionOutcome
    detail: str = ""
    records: Records = field(default_factory=list)
    cpu_seconds: float = 0.0


def attempt(prepare: Callable[[dict[str, Any], str], Records], text: bytes, name: str) -> Prepared:
    """Prepare a line; whatever it raises is its outcome.

    Raises `MemoryError`, and `StorageError` if the temporary folder is full, which is not the line's fault.
    """
    try:
        line = json.loads(text)
        if not isinstance(line, dict):
            raise QuestionError(QuestionOutcome.BAD_LINE, "the line is not a JSON object")
        return Prepared(QuestionOutcome.PREPARED, "", prepare(line, name))
    except MemoryError:
        raise
    except QuestionError as error:
        return Prepared(error.outcome, printable(str(error)))
    except RecursionError:
        return Prepared(QuestionOutcome.BAD_LINE, "the line is nested too deeply")
    except ValueError as error:
        return Prepared(QuestionOutcome.BAD_LINE, f"the line cannot be used: {printable(str(error)[:_SHOWN])}")
    except Exception as error:
        if full := disk_full(error, name):
            raise full from error
        return Prepared(QuestionOutcome.CRASHED, f"{type(error).__name__}: {printable(str(error)[:_SHOWN])}")


def printable(text: str) -> str:
    """A text on one line that can be written as UTF-8."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())


class SandboxedPreparer:
    """One child process, started when first needed and again after each that was lost."""

    def __init__(self, preparer: Preparer, limits: Limits):
        self.preparer, self.limits = preparer, limits
        self._child: Child | None = None

    def __call__(self, text: bytes, name: str) -> Prepared:
        """What becomes of a line; a lost child gives timed-out, crashed or out-of-memory.

        Raises `UserError` if no line could be prepared, such as with a full disk or an unreadable vocabulary.
        """
        if self._child is None:
            self._child = Child(DECODER, self.limits, _KEPT_HEAP)
        try:
            answer = self._child.request(Request(self.preparer, text, name), self.limits.seconds)
        except TimeoutError:
            self.close()
            return Prepared(QuestionOutcome.TIMED_OUT, f"not prepared after {self.limits.seconds:g} s")
        except EOFError:
            description = self._child.exit_description()
            self.close()
            return Prepared(QuestionOutcome.CRASHED, printable(description))
        if isinstance(answer, UserError):
            raise answer
        if answer.outcome is QuestionOutcome.OUT_OF_MEMORY:
            self.close()
        return answer

    def close(self) -> None:
        """End the child and everything it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None
