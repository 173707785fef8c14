"""Decode in a sandboxed subprocess with limits of time and memory.

A worker keeps one child and hands it video after video. A video that hangs, crashes or eats memory takes the child
with it and nothing else: its outcome says so and the next video gets a new child. The child dies with its worker,
however the worker ends.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ingest.config import VideoConfig
from ingest.raw import RawVideo
from ingest.result import Result
from pipelines.runner.limits import Limits
from pipelines.runner.sandbox import SMALL_HEAP, Child
from shards.outcomes import Outcome
from shards.records.segments import VideoText
from shards.storage.filesystem import StorageError

DECODER = "pipelines.extraction.child"
"""The module that the child runs."""


class Work(enum.Enum):
    """What a child is to do with a raw video: everything, look at its text alone, or open its media."""

    PROCESS = "process"
    SCREEN = "screen"
    CHECK = "check"


@dataclass(frozen=True)
class Request:
    """A raw video, what to do with it, and how."""

    work: Work
    raw: RawVideo
    config: VideoConfig


@dataclass(frozen=True)
class Extracted:
    """A video's result and the seconds of CPU that it cost."""

    result: Result
    cpu_seconds: float


class Extractor:
    """One child process, started when first needed and again after each that was lost.

    Captions, metadata and media come from outside, so nothing else reads them. The child's temporary files live in a
    folder of its own in the temporary folder, which goes with it.
    """

    def __init__(self, config: VideoConfig, limits: Limits):
        self.config, self.limits = config, limits
        self._child: Child | None = None

    def __call__(self, raw: RawVideo) -> Extracted:
        """The result of a raw video; a lost child gives timed-out, crashed or out-of-memory.

        Raises `StorageError` when there is no room for its temporary files.
        """
        extracted = self._answer(Request(Work.PROCESS, raw, self.config))
        if extracted is None:
            raise AssertionError(f"the decoder gave no result for {raw.id!r}")
        return extracted

    def screen(self, raw: RawVideo) -> Result | None:
        """The result of a raw video that is rejected by its text, before its media are fetched; `None` if it is not.

        A lost child gives a result as for `__call__`.
        """
        extracted = self._answer(Request(Work.SCREEN, raw, self.config))
        return extracted and extracted.result

    def check(self, raw: RawVideo) -> Result | None:
        """The result of a video whose downloaded media cannot be opened; `None` if they can. Otherwise as `screen`."""
        extracted = self._answer(Request(Work.CHECK, raw, self.config))
        return extracted and extracted.result

    def _answer(self, request: Request) -> Extracted | None:
        raw = request.raw
        if self._child is None:
            self._child = Child(DECODER, self.limits, SMALL_HEAP)
        try:
            extracted = self._child.ask(request, self.limits.seconds)
        except TimeoutError:
            return self._lost(raw, Outcome.TIMED_OUT, f"no result after {self.limits.seconds:g} s")
        except EOFError:
            return self._lost(raw, Outcome.CRASHED, self._child.last_words())
        if isinstance(extracted, StorageError):
            raise extracted
        if extracted is not None and extracted.result.outcome is Outcome.OUT_OF_MEMORY:
            self.close()
        return extracted

    def _lost(self, raw: RawVideo, outcome: Outcome, detail: str) -> Extracted:
        self.close()
        return Extracted(Result(outcome, detail, {}, VideoText(raw.id)), 0.0)

    def close(self) -> None:
        """End the child and everything it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None
