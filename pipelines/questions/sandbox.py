"""Prepare questions in a sandboxed subprocess, so that bad lines and media affect only their own question.

A worker reuses one child for all its lines. A line that hangs, crashes or uses too much memory ends the child: it gets
the corresponding outcome, and the next line gets a new child.
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

_LARGE_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
"""Environment of the child: it reuses the memory of an image for the next, which saves 4 ms of page faults each."""

_MAX_DETAIL = 120
"""Characters of an exception's message in the detail of an outcome."""


@dataclass(frozen=True)
class Request:
    """A line to prepare, its preparer, and its name if it has none."""

    preparer: Preparer
    text: bytes
    name: str


@dataclass(frozen=True)
class Prepared:
    """The outcome of a line, its records if it was prepared, and its CPU time in seconds."""

    outcome: QuestionOutcome
    detail: str = ""
    records: Records = field(default_factory=list)
    cpu_seconds: float = 0.0


def attempt(prepare: Callable[[dict[str, Any], str], Records], text: bytes, name: str) -> Prepared:
    """Prepare a line; an exception becomes its outcome.

    Raises `MemoryError`, and `StorageError` if the temporary folder is full, which the line does not cause.
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
        return Prepared(QuestionOutcome.BAD_LINE, f"the line cannot be used: {printable(str(error)[:_MAX_DETAIL])}")
    except Exception as error:
        if full := disk_full(error, name):
            raise full from error
        return Prepared(QuestionOutcome.CRASHED, f"{type(error).__name__}: {printable(str(error)[:_MAX_DETAIL])}")


def printable(text: str) -> str:
    """Return a text as one line that can be encoded as UTF-8."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())


class SandboxedPreparer:
    """A client of one child process, which is started on first use and again after it was lost."""

    def __init__(self, preparer: Preparer, limits: Limits):
        self.preparer, self.limits = preparer, limits
        self._child: Child | None = None

    def __call__(self, text: bytes, name: str) -> Prepared:
        """Return the outcome of a line; if the child is lost, this is timed-out, crashed or out-of-memory.

        Raises `UserError` for errors that every line would have, such as a full disk or an unreadable tokenizer.
        """
        if self._child is None:
            self._child = Child(DECODER, self.limits, _LARGE_HEAP)
        try:
            prepared = self._child.request(Request(self.preparer, text, name), self.limits.seconds)
        except TimeoutError:
            self.close()
            return Prepared(QuestionOutcome.TIMED_OUT, f"not prepared after {self.limits.seconds:g} s")
        except EOFError:
            description = self._child.exit_description()
            self.close()
            return Prepared(QuestionOutcome.CRASHED, printable(description))
        if isinstance(prepared, UserError):
            raise prepared
        if prepared.outcome is QuestionOutcome.OUT_OF_MEMORY:
            self.close()
        return prepared

    def close(self) -> None:
        """End the child and all processes it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None
