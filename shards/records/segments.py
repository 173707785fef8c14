"""Segments, the unit of all data, and the text and metadata of a whole video."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack
import numpy as np
from jaxtyping import Float32, Int


@dataclass(frozen=True)
class Segment:
    """Five played seconds of a video: one frame, its sound and its words."""

    start: float
    """Start in seconds of the video."""
    end: float
    """End in seconds of the video."""
    speed: int
    """Playback speed: 1, 2 or 3."""
    image: bytes
    """The frame as baseline JPEG."""
    width: int
    height: int
    spectrogram: bytes
    """A grey JPEG of 64 mel bands by 188 columns; log-mel = pixel / `magic`."""
    magic: float
    tokens: Int[np.ndarray, "tokens"]
    token_starts: Float32[np.ndarray, "tokens"]
    """Start of each token's word in played seconds from the start of the segment."""
    token_ends: Float32[np.ndarray, "tokens"]
    """End of each token's word, likewise."""


@dataclass(frozen=True)
class VideoText:
    """Text of a whole video: token ids of title, tags and description, and metadata, `meta`, as a JSON object."""

    video_id: str
    title: list[int] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)
    description: list[int] = field(default_factory=list)
    meta: str = "{}"


def pack(segment: Segment) -> bytes:
    """Serialize a segment."""
    values = dict(vars(segment))
    values["tokens"] = segment.tokens.astype("<i4").tobytes()
    values["token_starts"] = segment.token_starts.astype("<f4").tobytes()
    values["token_ends"] = segment.token_ends.astype("<f4").tobytes()
    # `packb` always returns bytes; the annotation is inferred from the pure Python implementation.
    return msgpack.packb(values)  # pyright: ignore[reportReturnType]


def unpack(blob: bytes) -> Segment:
    """Deserialize a segment. Raises an exception of any kind for other bytes."""
    values = msgpack.unpackb(blob)
    values["tokens"] = np.frombuffer(values["tokens"], "<i4")
    values["token_starts"] = np.frombuffer(values["token_starts"], "<f4")
    values["token_ends"] = np.frombuffer(values["token_ends"], "<f4")
    return Segment(**values)
