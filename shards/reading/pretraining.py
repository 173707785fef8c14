"""Parse one record into the arrays of pretraining (docs/spec/shards.md 6 to 15).

All randomness comes from the streams that the caller passes, so the arrays depend on the record, the epoch and the seed
alone. NumPy and compiled kernels only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped, UInt8

from shards.arrays import audio, images
from shards.arrays.resampling import to_bfloat16
from shards.reading import masking
from shards.reading.config import ReaderConfig
from shards.reading.masking import Rows, Sequence
from shards.reading.random_text import mask_text
from shards.reading.truncation import truncate
from shards.reading.vocabulary import Vocabulary
from shards.records.parser import Arrays, Streams
from shards.records.pretraining import Example, ExampleSegment, parse_example
from shards.sizes import MEL_BANDS
from shards.storage.errors import RecordError, UsageError
from shards.tokens import AUDIOSPAN, END, FIRST_TEXT_ID, LTOVPOOL, MASK, MASKAUDIO, PADDING, START

_META_BYTES = 256
_ID_BYTES = 11
_DIGESTED_BYTES = 1 << 16
"""The end of a record identifies it; a hash of the whole record would cost a tenth of reading it."""

_NOT_IN_TEXT = np.array([PADDING, MASK, MASKAUDIO, AUDIOSPAN, LTOVPOOL])


@dataclass(frozen=True)
class DecodedSegment:
    """A decoded segment for other models. Times are seconds: of the video, and of tokens from the segment's start."""

    video_id: str
    start: float
    end: float
    speed: int
    image: UInt8[np.ndarray, "h w 3"]
    log_mel: Float32[np.ndarray, "188 64"]
    tokens: Int[np.ndarray, "tokens"]
    token_starts: Float32[np.ndarray, "tokens"]
    token_ends: Float32[np.ndarray, "tokens"]


class PretrainingParser:
    """Parses a record into the arrays of docs/spec/shards.md 15.1."""

    def __init__(self, config: ReaderConfig, vocabulary: Vocabulary):
        self.config, self.vocabulary = config, vocabulary

    def spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Return shape and dtype of every array of one example."""
        c = self.config
        integers = np.dtype(np.int32)
        patches = c.segments * c.grid[0] * c.grid[1]
        spec = {
            "images": ((patches, c.patch_size**2 * 3), _dtype(c.image_dtype)),
            "audio_clips": ((c.rows * c.audio_frames, MEL_BANDS + 1), _dtype(c.audio_dtype)),
            "text_spans": ((c.span_rows, c.span_length), integers),
            "video_src_index": ((c.segments,), integers),
        }
        for name, (count, length) in self._sequences().items():
            for suffix in ("", "/audio_ptr", "/text_ptr"):
                spec[name + suffix] = ((count, length), integers)
        if c.encode_meta:
            spec |= {"meta": ((_META_BYTES,), integers), "youtube_id": ((_ID_BYTES,), integers)}
        if c.record_digest:
            spec["record_digest"] = ((2,), integers)
        return spec

    def _sequences(self) -> dict[str, tuple[int, int]]:
        c = self.config
        sequences = {
            "text2audio": (c.text2audio_sequences * c.groups, c.text_length),
            "audio2text": (c.audio2text_sequences * c.groups, c.text_length),
            "audio_text_matching": (1, c.sequence_length),
        }
        if c.random_text_sequences:
            sequences["random_text"] = (c.random_text_sequences, c.sequence_length)
        return sequences

    def __call__(self, payload: bytes, streams: Streams, out: Arrays) -> dict[str, int]:
        """Fill the arrays of one example and return the number of truncated sequences.

        Raises `RecordError` if the record is damaged, `UsageError` if it is intact but does not match the
        configuration.
        """
        example = parse_example(payload)
        self._check(example)
        self._write_images(example, streams, out["images"])
        rows = self._write_audio(example, streams("audio"), out["audio_clips"])
        spans, truncated = self._write_speech(example, rows, streams, out)
        spans += self._write_random_text(example, streams("random_text"), out)
        _write_spans(spans, out["text_spans"])
        stored = [placed.run for placed in example.segments]
        out["video_src_index"][:] = stored if self.config.video_src_mode == "stored" else 1
        if self.config.encode_meta:
            text = example.segments[0].text
            _write_bytes(text.meta.encode(), out["meta"])
            _write_bytes(text.video_id.encode(), out["youtube_id"])
        if self.config.record_digest:
            out["record_digest"][:] = _digest(payload)
        return {"truncated_sequences": truncated}

    def _check(self, example: Example) -> None:
        c = self.config
        if len(example.segments) != c.segments:
            raise UsageError(
                f"the shards have {len(example.segments)} segments per example and the configuration {c.segments}; set"
                f" segments to {len(example.segments)}"
            )
        if c.random_text_sequences and len(example.random_text) < c.random_text_stored:
            raise UsageError(
                f"the records have {len(example.random_text)} web texts and the configuration {c.random_text_stored};"
                " set random_text_sequences to 0 if the shards contain none"
            )
        for i, placed in enumerate(example.segments):
            segment, tokens = placed.segment, placed.segment.tokens
            if tokens.size and not FIRST_TEXT_ID <= tokens.min() <= tokens.max() < self.vocabulary.size:
                raise RecordError(
                    f"segment {i} contains token {_stray(tokens, self.vocabulary.size)}, which is not text"
                )
            if not (np.isfinite(segment.magic) and segment.magic > 0):
                raise RecordError(f"the magic number of segment {i} is {segment.magic}")
            if segment.speed not in (1, 2, 3):
                raise RecordError(f"the playback speed of segment {i} is {segment.speed}, not 1, 2 or 3")
            for ids in (placed.text.title, placed.text.description, placed.text.tags):
                if ids and not 0 < min(ids) <= max(ids) < self.vocabulary.size:
                    raise RecordError(f"the video's text at segment {i} contains tokens outside the vocabulary")
        for text in example.random_text[: c.random_text_stored if c.random_text_sequences else 0]:
            if np.isin(text, _NOT_IN_TEXT).any() or not 0 <= text.min() <= text.max() < self.vocabulary.size:
                raise RecordError("a web text contains mask tokens, padding or tokens outside the vocabulary")

    def _write_images(
        self, example: Example, streams: Streams, out: Shaped[np.ndarray, "segments_patches values"]
    ) -> None:
        c = self.config
        if c.blank_images:
            out[:] = 0
            return
        bits = out.view(np.uint16) if c.image_dtype == "bfloat16" else out
        target = (c.grid[0] * c.patch_size, c.grid[1] * c.patch_size)
        rng = streams("images") if c.scaling else None
        for placed, patches in zip(example.segments, np.split(bits, c.segments), strict=True):
            image = images.decode(placed.segment.image)
            if c.turn_portraits:
                image = images.turn(image)
            placement = images.place(image.shape[0], image.shape[1], target, c.scaling, rng)
            images.write_patches(image, placement, c.grid, c.patch_size, patches)

    def _write_audio(
        self, example: Example, rng: np.random.Generator, out: Shaped[np.ndarray, "rows_frames 65"]
    ) -> Rows:
        """Write the audio clips and return the words of the example, assigned to them."""
        c = self.config
        starts = audio.clip_starts(rng.random((c.segments, c.subsegments + 1)), c.audio_frames)
        times = audio.clip_times(starts, c.audio_frames)
        clips = np.empty(out.shape, np.float32) if c.audio_dtype == "bfloat16" else out
        if c.blank_audio:
            clips[:] = 0
        else:
            shaped = clips.reshape(c.segments, c.subsegments, c.audio_frames, -1)
            for placed, first, clip in zip(example.segments, starts, shaped, strict=True):
                pixels = audio.decode(placed.segment.spectrogram)
                audio.write_clips(pixels, placed.segment.magic, placed.segment.speed, first, c.audio_frames, clip)
        if clips is not out:
            to_bfloat16(clips.reshape(-1), out.view(np.uint16).reshape(-1))
        return self._rows(example, times)

    def _rows(self, example: Example, times: audio.ClipTimes) -> Rows:
        c = self.config
        clock, tokens, centres, lengths = 0.0, [], [], []
        origins = np.empty((c.segments, 1), np.float32)
        for j, placed in enumerate(example.segments):
            segment = placed.segment
            middle = (segment.token_starts + segment.token_ends) / 2
            span = masking.assign(middle, times.centres[j])
            lengths.append(np.bincount(span, minlength=c.subsegments))
            tokens.append(segment.tokens.astype(np.int32))
            centres.append(middle + np.float32(clock))
            origins[j] = clock
            # The published clock counts seconds of the video although words and spans are timed in played seconds.
            clock += segment.end - segment.start if c.parity else audio.SEGMENT_SECONDS
        runs = np.repeat([placed.run for placed in example.segments], c.subsegments)
        joined = np.ones(c.rows, bool)
        joined[1:] = c.parity | (runs[1:] == runs[:-1])
        starts, ends = ((side + origins).reshape(-1) for side in (times.starts, times.ends))
        return Rows(np.concatenate(tokens), np.concatenate(centres), np.concatenate(lengths), starts, ends, joined)

    def _write_speech(
        self, example: Example, rows: Rows, streams: Streams, out: Arrays
    ) -> tuple[list[Int32[np.ndarray, "_"]], int]:
        """Write the three kinds of speech sequences; return the tokens of all targets and the number of truncations."""
        c, rng = self.config, streams("masking")
        first, second = c.text2audio_sequences, c.audio2text_sequences
        targets = masking.choose_targets(rng, c.rows, first + second, c.targets)
        order, neighbour_draws = rng.random((first, 2)), rng.random((second, c.rows))
        with_audio = bool(rng.random() < c.matching_audio_rate)
        spans: list[Int32[np.ndarray, "_"]] = []
        sequences: dict[str, list[Sequence]] = {"text2audio": [], "audio2text": []}
        for i, chosen in enumerate(targets):
            base = i * c.targets
            if i < first:
                sequence, _, words = masking.text_to_audio(rows, chosen, base, order[i])
            else:
                is_target = np.zeros(c.rows, bool)
                is_target[chosen] = True
                neighbours = masking.textual_neighbours(
                    is_target, rows.joined, neighbour_draws[i - first], c.neighbour_text_rate
                )
                sequence, words = masking.audio_to_text(rows, chosen, base, neighbours, c.audio_tokens)
            spans += words
            sequences["text2audio" if i < first else "audio2text"] += masking.split_groups(sequence, c.rows, c.groups)
        cutting = streams("truncation")
        truncated = 0
        for name, parts in sequences.items():
            cut = [truncate(part, c.text_length, cutting, c.rows, c.parity) for part in parts]
            truncated += sum(len(a) < len(b) for a, b in zip(cut, parts, strict=True))
            _write_sequences(name, cut, out)
        _write_sequences("audio_text_matching", [self._matching(example, with_audio)], out)
        return spans, truncated

    def _matching(self, example: Example, with_audio: bool) -> Sequence:
        c = self.config
        words = [placed.segment.tokens for placed in example.segments]
        body = masking.matching_body(words, c.subsegments, c.audio_tokens, with_audio, None if c.parity else c.limit)
        length = max(c.limit - len(body), 0)
        firsts = [a for i, a in enumerate(example.segments) if i == 0 or a.run != example.segments[i - 1].run]
        headers = [self._header(placed) for placed in (firsts[:1] if c.parity else firsts)]
        shares = masking.fair_share(np.array([ids.size for ids in headers]), length)
        parts = [masking.header(ids, int(share)) for ids, share in zip(headers, shares, strict=True)]
        return np.concatenate([*parts, body])

    def _header(self, placed: ExampleSegment) -> Int32[np.ndarray, "tokens"]:
        text, spelled = placed.text, self.vocabulary.headers
        ids = [START, *spelled["title:"], *text.title, START, *spelled["description:"], *text.description]
        return np.array([*ids, START, *spelled["tags:"], *text.tags, END], np.int32)

    def _write_random_text(
        self, example: Example, rng: np.random.Generator, out: Arrays
    ) -> list[Int32[np.ndarray, "_"]]:
        c = self.config
        if not c.random_text_sequences:
            return []
        shape = c.text_shape
        spans: list[np.ndarray] = []
        sequences = []
        first = c.targets * (c.text2audio_sequences + c.audio2text_sequences)
        chosen = np.sort(rng.permutation(c.random_text_stored)[: c.random_text_sequences])
        for i, number in enumerate(chosen):
            tokens = example.random_text[number].astype(np.int32)
            sequence, words = mask_text(tokens, self.vocabulary.spoken, first + i * shape.budget, shape, rng)
            sequences.append(sequence)
            spans += [*words, *[tokens[:0]] * (shape.budget - len(words))]
        _write_sequences("random_text", sequences, out)
        return spans


def decode_example(payload: bytes) -> tuple[list[DecodedSegment], list[np.ndarray]]:
    """Return the decoded, unmasked segments of a record, and its web texts. Raises `RecordError`."""
    example = parse_example(payload)
    segments = []
    for placed in example.segments:
        s = placed.segment
        log_mel = audio.decode(s.spectrogram) / np.float32(s.magic)
        image = images.decode(s.image)
        segments.append(
            DecodedSegment(
                placed.text.video_id, s.start, s.end, s.speed, image, log_mel, s.tokens, s.token_starts, s.token_ends
            )
        )
    return segments, example.random_text


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _stray(tokens: Int[np.ndarray, "tokens"], size: int) -> int:
    return int(tokens[(tokens < FIRST_TEXT_ID) | (tokens >= size)][0])


def _write_sequences(name: str, sequences: list[Sequence], out: Arrays) -> None:
    for i, sequence in enumerate(sequences):
        padded = masking.pad(sequence, out[name].shape[1])
        for column, suffix in enumerate(("", "/audio_ptr", "/text_ptr")):
            out[name + suffix][i] = padded[:, column]


def _write_spans(spans: list[Int32[np.ndarray, "_"]], out: Int32[np.ndarray, "spans length"]) -> None:
    out[:] = PADDING
    for row, words in zip(out, spans, strict=True):
        kept = words[: row.size]
        row[: kept.size] = kept


def _write_bytes(text: bytes, out: Int32[np.ndarray, "length"]) -> None:
    out[:] = 0
    kept = np.frombuffer(text[: out.size], np.uint8)
    out[: kept.size] = kept


def _digest(payload: bytes) -> Int32[np.ndarray, "2"]:
    """Return two checksums that identify a record."""
    end = payload[-_DIGESTED_BYTES:]
    return np.array([zlib.crc32(end, len(payload)), zlib.adler32(end)], np.uint32).view(np.int32)
