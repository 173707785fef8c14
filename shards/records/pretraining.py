"""The pretraining record: 16 segments of one or several videos in one `tf.train.Example` (docs/spec/shards.md 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from shards.records import example
from shards.records.example import Feature
from shards.records.segments import Segment, VideoText
from shards.sizes import MEL_BANDS, SPECTROGRAM_COLUMNS
from shards.storage.errors import RecordError

SEGMENTS = 16
"""Segments per example of the published shards."""

_INTEGERS = np.dtype(np.int64)


@dataclass(frozen=True)
class ExampleSegment:
    """A segment of an example; `run` is the number of its video in the example, from 0.

    `text` has title, tags, description and meta of the video for the first segment of a run, and only its id for the
    others.
    """

    segment: Segment
    text: VideoText
    run: int


@dataclass(frozen=True)
class Example:
    """One record: its segments in order, and packed web texts, which are stored with the first segments."""

    segments: list[ExampleSegment]
    random_text: list[Int64[np.ndarray, "1536"]] = field(default_factory=list)

    def serialize(self) -> bytes:
        """Return the bytes of the record."""
        if len(self.random_text) > len(self.segments):
            raise ValueError(f"{len(self.random_text)} text sequences do not fit on {len(self.segments)} segments")
        features: dict[str, list[bytes] | np.ndarray] = {}
        for i, placed in enumerate(self.segments):
            text = self.random_text[i] if i < len(self.random_text) else np.zeros(0, _INTEGERS)
            for name, values in _segment_features(placed, text).items():
                features[f"c{i:02d}/{name}"] = values
        return example.serialize(features)


def arrange(runs: list[tuple[VideoText, list[Segment]]], random_text: list[np.ndarray] | None = None) -> Example:
    """Return an example of consecutive runs of videos; only the first segment of each run has the video's text."""
    placed = [
        ExampleSegment(segment, text if i == 0 else VideoText(text.video_id, meta=""), run)
        for run, (text, segments) in enumerate(runs)
        for i, segment in enumerate(segments)
    ]
    return Example(placed, random_text or [])


def parse_example(data: bytes) -> Example:
    """Parse the bytes of a record. Raises `RecordError` naming the feature that is missing or invalid."""
    return example_of(example.parse(data))


def example_of(features: Mapping[str, Feature]) -> Example:
    """Convert the features of a record. Raises `RecordError` naming the feature that is missing or invalid."""
    count = sum(1 for name in features if name.endswith("/image/encoded"))
    if not count or any(f"c{i:02d}/image/encoded" not in features for i in range(count)):
        raise RecordError("the record has no segments c00, c01, ...: it is not a pretraining record")
    placed, texts = [], []
    for i in range(count):
        view = _View(features, f"c{i:02d}/")
        placed.append(_parse_segment(view))
        random_text = view.integers("random_text")
        if random_text.size:
            texts.append(random_text)
    return Example(placed, texts)


def _segment_features(placed: ExampleSegment, random_text: np.ndarray) -> dict[str, list[bytes] | np.ndarray]:
    segment, text = placed.segment, placed.text
    return {
        "image/encoded": [segment.image],
        "image/format": [b"jpeg"],
        "image/key/sha256": [hashlib.sha256(segment.image).hexdigest().encode()],
        "image/height": _scalar(segment.height),
        "image/width": _scalar(segment.width),
        "spectrogram/encoded": [segment.spectrogram],
        "spectrogram/format": [b"jpeg"],
        "spectrogram/key/sha256": [hashlib.sha256(segment.spectrogram).hexdigest().encode()],
        "spectrogram/height": _scalar(MEL_BANDS),
        "spectrogram/width": _scalar(SPECTROGRAM_COLUMNS),
        "spectrogram/magic_number": _real(segment.magic),
        "youtube_id": [text.video_id.encode()],
        # The published writer and reader use different names for the run number; both are written.
        "video_src_idx": _scalar(placed.run),
        "video_src_index": _scalar(placed.run),
        "title": np.array(text.title, _INTEGERS),
        "tags": np.array(text.tags, _INTEGERS),
        "description": np.array(text.description, _INTEGERS),
        "meta": [text.meta.encode()],
        "playback_speed": _scalar(segment.speed),
        "start_time": _real(segment.start),
        "end_time": _real(segment.end),
        "tok_ids": segment.tokens.astype(_INTEGERS),
        "tok_start_times": segment.token_starts.astype(np.float32),
        "tok_end_times": segment.token_ends.astype(np.float32),
        "random_text": random_text.astype(_INTEGERS),
    }


def _scalar(value: int) -> np.ndarray:
    return np.array([value], _INTEGERS)


def _real(value: float) -> np.ndarray:
    return np.array([value], np.float32)


class _View:
    """Typed access to the features of one segment: each method checks type and number of the values."""

    def __init__(self, features: Mapping[str, Feature], prefix: str):
        self.features, self.prefix = features, prefix

    def _get(self, name: str) -> Feature:
        try:
            return self.features[self.prefix + name]
        except KeyError:
            raise RecordError(f"the feature {self.prefix + name!r} is missing") from None

    def text(self, name: str) -> bytes:
        values = self._get(name)
        if not isinstance(values, list) or len(values) != 1:
            raise RecordError(f"the feature {self.prefix + name!r} must have exactly one string")
        return values[0]

    def _array(self, name: str, kind: str) -> np.ndarray:
        values = self._get(name)
        if isinstance(values, list) and not values:
            return np.zeros(0, np.int64 if kind == "i" else np.float32)
        if isinstance(values, list) or (values.size and values.dtype.kind != kind):
            raise RecordError(f"the feature {self.prefix + name!r} has values of another type")
        return values

    def integers(self, name: str) -> np.ndarray:
        return self._array(name, "i")

    def reals(self, name: str) -> np.ndarray:
        return self._array(name, "f")

    def one(self, name: str, kind: str):
        values = self._array(name, kind)
        if values.size != 1:
            raise RecordError(f"the feature {self.prefix + name!r} must have exactly one number, not {values.size}")
        return values[0].item()

    def run(self) -> int:
        """Return the run number under either of its two names; published shards have only the first."""
        for name in ("video_src_index", "video_src_idx"):
            if self.prefix + name in self.features:
                return self.one(name, "i")
        return 1


def _parse_segment(view: _View) -> ExampleSegment:
    segment = Segment(
        start=view.one("start_time", "f"),
        end=view.one("end_time", "f"),
        speed=view.one("playback_speed", "i"),
        image=view.text("image/encoded"),
        width=view.one("image/width", "i"),
        height=view.one("image/height", "i"),
        spectrogram=view.text("spectrogram/encoded"),
        magic=view.one("spectrogram/magic_number", "f"),
        tokens=view.integers("tok_ids"),
        token_starts=view.reals("tok_start_times"),
        token_ends=view.reals("tok_end_times"),
    )
    lengths = {segment.tokens.size, segment.token_starts.size, segment.token_ends.size}
    if len(lengths) != 1:
        raise RecordError(f"the token lists of {view.prefix!r} have different lengths: {sorted(lengths)}")
    text = VideoText(
        video_id=_decode(view, "youtube_id"),
        title=view.integers("title").tolist(),
        tags=view.integers("tags").tolist(),
        description=view.integers("description").tolist(),
        meta=_decode(view, "meta"),
    )
    return ExampleSegment(segment, text, view.run())


def _decode(view: _View, name: str) -> str:
    try:
        return view.text(name).decode()
    except UnicodeDecodeError:
        raise RecordError(f"the feature {view.prefix + name!r} is not UTF-8") from None
