"""Decode in a sandboxed subprocess with limits of time and memory.

A worker reuses one child for all its videos. A video that hangs, crashes or uses too much memory ends only the child:
it gets the corresponding outcome, and the next video gets a new child. The child exits with its worker.
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
    """The work requested for a raw video: process it, screen its text, or check that its media can be opened."""

    PROCESS = "process"
    SCREEN = "screen"
    CHECK = "check"


@dataclass(frozen=True)
class Request:
    """A raw video, and the work and configuration requested for it."""

    work: Work
    raw: RawVideo
    config: VideoConfig


@dataclass(frozen=True)
class Extracted:
    """A video's result and its CPU time in seconds."""

    result: Result
    cpu_seconds: float


class Extractor:
    """A client of one child process, which is started on first use and again after it was lost.

    Captions, metadata and media are untrusted, so only the child reads them. Its temporary files are in its own folder,
    which is removed with it.
    """

    def __init__(self, config: VideoConfig, limits: Limits):
        self.config, self.limits = config, limits
        self._child: Child | None = None

    def __call__(self, raw: RawVideo) -> Extracted:
        """Return the result of a raw video; if the child is lost, this is timed-out, crashed or out-of-memory.

        Raises `StorageError` if there is no space for temporary files.
        """
        extracted = self._request(Request(Work.PROCESS, raw, self.config))
        if extracted is None:
            raise AssertionError(f"the decoder gave no result for {raw.id!r}")
        return extracted

    def screen(self, raw: RawVideo) -> Result | None:
        """Return the result of a raw video that its text rejects, before its media are fetched, or else `None`.

        If the child is lost, the result is as for `__call__`.
        """
        extracted = self._request(Request(Work.SCREEN, raw, self.config))
        return extracted and extracted.result

    def check(self, raw: RawVideo) -> Result | None:
        """Return the result of a video whose downloaded media cannot be opened, or else `None`, as for `screen`."""
        extracted = self._request(Request(Work.CHECK, raw, self.config))
        return extracted and extracted.result

    def _request(self, request: Request) -> Extracted | None:
        raw = request.raw
        if self._child is None:
            self._child = Child(DECODER, self.limits, SMALL_HEAP)
        try:
            extracted = self._child.request(request, self.limits.seconds)
        except TimeoutError:
            return self._lost(raw, Outcome.TIMED_OUT, f"no result after {self.limits.seconds:g} s")
        except EOFError:
            return self._lost(raw, Outcome.CRASHED, self._child.exit_description())
        if isinstance(extracted, StorageError):
            raise extracted
        if extracted is not None and extracted.result.outcome is Outcome.OUT_OF_MEMORY:
            self.close()
        return extracted

    def _lost(self, raw: RawVideo, outcome: Outcome, detail: str) -> Extracted:
        self.close()
        return Extracted(Result(outcome, detail, {}, VideoText(raw.id)), 0.0)

    def close(self) -> None:
        """End the child and all processes it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None
