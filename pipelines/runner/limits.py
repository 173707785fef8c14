"""Limits of time and memory for decoding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits for one video: seconds of wall time, and bytes of memory of the process that decodes it."""

    seconds: float = 600.0
    memory_bytes: int = 2 << 30
