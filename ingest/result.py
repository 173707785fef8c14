"""What processing a video gives, without what processes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ingest.outcomes import Outcome
from shards.segments import Segment, VideoText


@dataclass(frozen=True)
class Result:
    """The result of a video: its outcome with every score, and its segments if there are any."""

    outcome: Outcome
    detail: str
    scores: dict[str, Any]
    text: VideoText
    segments: list[Segment] = field(default_factory=list)
