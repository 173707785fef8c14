"""The result of processing a video, without the imports of the processing."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

from shards.outcomes import Outcome
from shards.records.segments import Segment, VideoText


@dataclass(frozen=True)
class Result:
    """The result of a video: its outcome with every score, and its segments if there are any."""

    outcome: Outcome
    detail: str
    scores: dict[str, Any]
    text: VideoText
    segments: list[Segment] = field(default_factory=list)


_TRACEBACK_CHARACTERS = 2000


def crashed(video_id: str, error: Exception) -> Result:
    """Return the result of a video that raised an unexpected exception: its sentence, and the end of its traceback."""
    message = " ".join(str(error).split())[:300]
    detail = f"{type(error).__name__}: {message}" if message else type(error).__name__
    lines = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    # Names of files that are not UTF-8 must not reach the ledger.
    detail, lines = (text.encode(errors="backslashreplace").decode() for text in (detail, lines))
    return Result(Outcome.CRASHED, detail, {"traceback": lines}, VideoText(video_id))
