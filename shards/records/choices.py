"""The record of a question about a clip: up to seven segments of image, sound and subtitle, and k options.

The schema is the published one of TVQA with any number of options and segments and optional sound; a question about an
image is a clip of one silent segment (docs/spec/finetune_data.md 3.7, 3.8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8

from shards.arrays import jpeg as jpeg_pictures
from shards.records import example
from shards.records.parser import Arrays, Streams
from shards.records.question_config import MOST_SEGMENTS, ClipConfig
from shards.records.question_rows import (
    ID_BYTES,
    Fields,
    empty,
    encoded_id,
    fixed,
    option_row,
    scalar,
    write_id,
    write_picture,
)
from shards.sizes import MEL_BANDS
from shards.storage.errors import RecordError
from shards.tokens import AUDIOSPAN

CLIPS = 3
CLIP_FRAMES = 60
ROWS = CLIPS * CLIP_FRAMES
"""Spectrogram rows of a segment, one per time step."""
BANDS = MEL_BANDS + 1
"""The mel bands and the playback speed, which is always 1."""
AUDIO_TOKENS = 18
"""AUDIOSPAN tokens of a segment."""
_SHIFT = 4
"""Maximum number of columns that training shifts the sound by."""


@dataclass(frozen=True)
class ClipSegment:
    """One segment: a JPEG, a grey JPEG of 180 x 65 (time by band) or `None`, and the tokens of the subtitle."""

    image: bytes
    spectrogram: bytes | None
    subtitle: Int64[np.ndarray, "tokens"]


@dataclass(frozen=True)
class ClipRecord:
    """One question; `magic` scales the stored spectrograms: log-mel = pixel / magic."""

    id: str
    query: Int64[np.ndarray, "tokens"]
    options: tuple[Int64[np.ndarray, "tokens"], ...]
    label: int
    segments: tuple[ClipSegment, ...]
    magic: float = 1.0

    def serialize(self, slots: int) -> bytes:
        """Return the bytes of the record; a clip of fewer than `slots` segments repeats its last image and sound."""
        features: dict[str, list[bytes] | np.ndarray] = {
            "id": [encoded_id(self.id)],
            "magic_number": np.array([self.magic], np.float32),
            "num_frames": scalar(len(self.segments)),
            "qa_query": self.query.astype(np.int64),
            "qa_label": scalar(self.label),
        }
        for i, option in enumerate(self.options):
            features[f"qa_choice_{i}"] = option.astype(np.int64)
        for i in range(slots):
            segment = self.segments[min(i, len(self.segments) - 1)]
            features[f"c{i:02d}/image_encoded"] = [segment.image]
            if segment.spectrogram is not None:
                features[f"c{i:02d}/spec_encoded"] = [segment.spectrogram]
            subtitle = segment.subtitle if i < len(self.segments) else segment.subtitle[:0]
            features[f"c{i:02d}/sub"] = subtitle.astype(np.int64)
        return example.serialize(features)


def parse_record(data: bytes, options: int | None = None, sound: bool = True) -> ClipRecord:
    """Parse the bytes of a record. Raises `RecordError` naming the feature that is missing or invalid.

    `options` is the required number of options; any number is accepted without it.
    """
    fields = Fields(example.parse(data))
    count, present = fields.number("num_frames"), 0
    while f"qa_choice_{present}" in fields.features:
        present += 1
    if options is not None and present != options:
        raise RecordError(f"the question has {present} options instead of {options}")
    if count not in range(1, MOST_SEGMENTS + 1):
        raise RecordError(f"num_frames is {count}; it must be 1 to {MOST_SEGMENTS}")
    magic = fields.number("magic_number")
    if not (np.isfinite(magic) and magic > 0):
        raise RecordError(f"the magic number is {magic}; it must be positive")
    segments = tuple(
        ClipSegment(
            fields.bytes(f"c{i:02d}/image_encoded"),
            fields.bytes(f"c{i:02d}/spec_encoded") if sound else None,
            fields.text(f"c{i:02d}/sub"),
        )
        for i in range(int(count))
    )
    texts = tuple(fields.text(f"qa_choice_{i}") for i in range(present))
    return ClipRecord(fields.id(), fields.text("qa_query"), texts, fields.label("qa_label", present), segments, magic)


def fit(config: ClipConfig, payload: bytes) -> ClipConfig:
    """Return the configuration with the options, segments and sound of a record. Raises `RecordError`."""
    features = example.parse(payload)
    sound = "c00/spec_encoded" in features
    options = len(parse_record(payload, sound=sound).options)
    segments = sum(name.endswith("/image_encoded") for name in features)
    return replace(config, options=options, segments=segments, sound=sound)


class ClipParser:
    """Parses a record into the arrays of docs/spec/finetune_data.md 3.8.

    They are `images [segments, patches, values]`, `textonly_seqs` and, with sound, `audio_seqs [options, text_length,
    2]` of (token, segment) with the option in segment 0, `audio_clips [segments, 3, 60, 65]`, `labels`, `num_frames`,
    `magic_number` and `id`; with `mask_padding` also `is_segment bool [segments]`.
    """

    def __init__(self, config: ClipConfig):
        self.config = config

    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return shape and dtype of every array of one example."""
        c, integers = self.config, np.dtype(np.int32)
        rows = ((c.options, c.text_length, 2), integers)
        spec = {"images": ((c.segments, *c.patches), c.floats), "textonly_seqs": rows}
        if c.sound:
            spec |= {"audio_clips": ((c.segments, CLIPS, CLIP_FRAMES, BANDS), c.floats), "audio_seqs": rows}
        if c.mask_padding:
            spec["is_segment"] = ((c.segments,), np.dtype(bool))
        scalars = {"labels": integers, "num_frames": integers, "magic_number": np.dtype(np.float32)}
        return spec | {name: ((), dtype) for name, dtype in scalars.items()} | {"id": ((ID_BYTES,), np.dtype(np.uint8))}

    def __call__(self, payload: bytes, streams: Streams, out: Arrays) -> dict[str, int]:
        """Fill the arrays of one question; return the numbers of cut options and of dropped subtitle tokens."""
        c = self.config
        record = parse_record(payload, c.options, c.sound)
        count = min(len(record.segments), c.segments)
        out["images"][count:] = 0
        for i in range(count):
            write_picture(record.segments[i].image, c, streams, out["images"][i])
        out["labels"][...], out["num_frames"][...] = record.label, count
        out["magic_number"][...] = record.magic
        write_id(record.id, out["id"])
        if c.mask_padding:
            out["is_segment"][:] = np.arange(c.segments) < count
        if c.sound:
            _write_sound(record, count, c, streams, out["audio_clips"])
        return self._write_rows(record, count, out)

    def _write_rows(self, record: ClipRecord, count: int, out: Arrays) -> dict[str, int]:
        c = self.config
        subtitles = [
            _in_segment(segment.subtitle, i) for i, segment in enumerate(record.segments[:count], start=1)
        ] or [np.zeros((0, 2), np.int64)]
        audio_segments = count if c.mask_padding else c.segments
        sounds = [_in_segment(np.full(AUDIO_TOKENS, AUDIOSPAN), i) for i in range(1, audio_segments + 1)]
        cut = lost = 0
        for i, option in enumerate(record.options):
            row, was_cut = option_row(record.query, c.answer_separator, option, c)
            cut += was_cut
            for name, rest in (("textonly_seqs", subtitles), ("audio_seqs", sounds)):
                if name in out:
                    whole = np.concatenate([_in_segment(row, 0), *rest])
                    kept = whole[: c.text_length]
                    lost += len(whole) - len(kept) if name == "textonly_seqs" else 0
                    out[name][i] = 0
                    out[name][i, : len(kept)] = kept
        return {"cut_options": cut, "lost_subtitle_tokens": lost}


def parse(record: bytes, config: ClipConfig) -> dict[str, Any]:
    """Return the arrays of one record without augmentation, and `id` as text. Raises `RecordError`."""
    parser = ClipParser(config)
    out: dict[str, Any] = empty(parser.spec())
    parser(record, fixed, out)
    return out | {"id": bytes(out["id"]).rstrip(b"\0").decode()}


def decode_sound(jpeg: bytes) -> UInt8[np.ndarray, "180 65"]:
    """Return the grey levels of a spectrogram. Raises `RecordError` if the bytes are not a valid one."""
    return jpeg_pictures.grey(jpeg, (ROWS, BANDS))


def _in_segment(tokens: Int64[np.ndarray, "tokens"], segment: int) -> Int64[np.ndarray, "tokens 2"]:
    return np.stack([tokens, np.full(tokens.size, segment)], axis=1).astype(np.int64)


def _write_sound(
    record: ClipRecord,
    count: int,
    config: ClipConfig,
    streams: Streams,
    out: Shaped[np.ndarray, "segments 3 60 65"],
) -> None:
    rows = np.concatenate([decode_sound(segment.spectrogram or b"") for segment in record.segments[:count]])
    values = rows.astype(np.float32) / np.float32(record.magic)
    if config.training and config.shift_sound:
        values = _shifted(values, streams("sound"))
    out[:] = 0
    out[:count] = values.reshape(count, CLIPS, CLIP_FRAMES, BANDS)
    out[..., -1] = 1


def _shifted(values: Float32[np.ndarray, "rows 65"], rng: np.random.Generator) -> Float32[np.ndarray, "rows 65"]:
    """Return the sound delayed by 0 to 4 columns, which are filled with noise of its mean and deviation.

    See docs/spec/finetune_data.md 3.8.
    """
    noise = rng.standard_normal((_SHIFT, values.shape[1]), np.float32) * values.std(axis=0) + values.mean(axis=0)
    first = int(rng.integers(_SHIFT + 1))
    return np.concatenate([noise, values])[first : first + len(values)]
