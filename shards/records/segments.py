"""A segment, the unit that everything is made of, and what is known of the whole video."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack
import numpy as np


@dataclass(frozen=True)
class Segment:
    """Five played seconds: one frame, their sound and their words.

    `image` is a baseline JPEG, `spectrogram` a grey JPEG of 64 mel bands by 188 columns whose log-mel values are
    pixel / `magic`. `tokens` has one id per token, `token_starts` and `token_ends` its word's times in played seconds
    from the segment's start. `start` and `end` are seconds of the video.
    """

    start: float
    end: float
    speed: int
    image: bytes
    width: int
    height: int
    spectrogram: bytes
    magic: float
    tokens: np.ndarray
    token_starts: np.ndarray
    token_ends: np.ndarray


@dataclass(frozen=True)
class VideoText:
    """What is known of a whole video: token ids of title, tags and description, and `meta`, a JSON object."""

    video_id: str
    title: list[int] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)
    description: list[int] = field(default_factory=list)
    meta: str = "{}"


def pack(segment: Segment) -> bytes:
    """A segment as bytes."""
    values = dict(vars(segment))
    values["tokens"] = segment.tokens.astype("<i4").tobytes()
    values["token_starts"] = segment.token_starts.astype("<f4").tobytes()
    values["token_ends"] = segment.token_ends.astype("<f4").tobytes()
    return msgpack.packb(values)


def unpack(blob: bytes) -> Segment:
    """The segment behind the bytes."""
    values = msgpack.unpackb(blob)
    values["tokens"] = np.frombuffer(values["tokens"], "<i4")
    values["token_starts"] = np.frombuffer(values["token_starts"], "<f4")
    values["token_ends"] = np.frombuffer(values["token_ends"], "<f4")
    return Segment(**values)
