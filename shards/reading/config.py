"""What the reader makes of an example: sizes, rates, budgets and policies, and how a stream of them runs.

The defaults are the published base model's with the right behaviour where the published reader is known to be wrong;
`ReaderConfig.with_parity` brings the published behaviour back for comparisons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shards.reading.cache import CacheOptions
from shards.sizes import MEL_BANDS, SAMPLE_RATE, SPECTROGRAM_COLUMNS, Scaling
from shards.storage.errors import UsageError

_FIELDS = {
    "num_segments": "segments",
    "num_segment_groups": "groups",
    "num_audio_subsegments": "subsegments",
    "audio_seq_length": "audio_frames",
    "audio_token_length": "audio_tokens",
    "output_grid": "grid",
    "vit_patch_size": "patch_size",
    "mask_rate": "mask_rate",
    "num_text2audio_seqs": "text2audio_sequences",
    "num_audio2text_seqs": "audio2text_sequences",
    "num_text_seqs": "random_text_sequences",
    "num_text_seqs_in_record": "random_text_stored",
    "lang_seq_len": "text_length",
    "seq_len": "sequence_length",
    "max_text_seq_len": "text_limit",
    "text_span_budget": "random_text_spans",
    "text_span_length": "span_length",
    "use_audio_token_prob": "matching_audio_rate",
    "convert_extra_span_to_text_prob": "neighbour_text_rate",
    "do_random_scale": "random_scale",
    "random_scale_min": "scale_min",
    "random_scale_max": "scale_max",
    "shrink_both_sides": "shrink_both_sides",
    "do_flip_if_vertical": "turn_portraits",
    "disable_imgs_dataloader": "blank_images",
    "disable_audio_dataloader": "blank_audio",
    "encode_meta": "encode_meta",
}
"""Published keys and the fields that hold them."""

_FORMAT = {
    "spec_size": SPECTROGRAM_COLUMNS,
    "num_mels": MEL_BANDS,
    "sample_rate": SAMPLE_RATE,
    "fft_hop_length": 588,
    "fft_window_size": 1536,
}
"""Published keys that the record format fixes."""

_ELSEWHERE = {
    *("train_fns", "num_train_files", "num_text_spans_to_include", "use_bfloat16", "hidden_size", "size_per_head"),
    *("joint_num_layers", "vit_num_layers", "audio_num_layers", "span_num_layers", "audio_patch_size"),
    *("vit_pooling_ratio", "no_vision", "do_rotary", "_augment_video_src_idx_prob", "ablation"),
}
"""Published keys that are not about examples, or that are read apart."""


_TOKENS_PER_MASK = 5.5

MAX_SCALE = 100.0
"""Largest random zoom of an image; beyond it a frame is a single pixel."""


@dataclass(frozen=True)
class TextShape:
    """`length` entries of a sequence, of which `limit` may be used; `budget` masked rows; the name of the statistics.

    `parity` lets the masked text run over `limit`, as the published reader did.
    """

    length: int
    limit: int
    budget: int
    statistics: str
    parity: bool


def default_budget(length: int, mask_rate: float) -> int:
    """Masked rows of a text of `length` tokens (docs/spec/shards.md 12.2)."""
    return int(length / (_TOKENS_PER_MASK / mask_rate - _TOKENS_PER_MASK + 1))


@dataclass(frozen=True)
class StreamOptions:
    """How the records of a data set become a stream of batches."""

    training: bool = True
    """Endless and shuffled with augmentation; otherwise one pass in order, the same every time. On several hosts such a
    pass leaves out the last records that they cannot share; `shards.reading.evaluation.Pass` fills them up instead."""
    split: str | None = None
    """Which split of a data folder; needed where it has several."""
    files: int | None = None
    """The number of files of a published pattern such as `train{:05d}of32800.tfrecord`."""
    window: int = 128
    """Shards whose records are shuffled together."""
    bad_records: int = 0
    """How many damaged records are replaced by others before the reader gives up."""
    workers: int | None = None
    """Processes that make examples; 0 makes them by threads of this one. By default all cores but one, at most 16, on a
    machine of 4 cores or more, and 0 on a smaller one."""
    threads: int | None = None
    """Threads that make examples without worker processes; as many as there are cores by default."""
    cache: CacheOptions | None = None
    """What of shards in a bucket is kept on this host; nothing by default."""

    def __post_init__(self) -> None:
        _require(self.workers is None or self.workers >= 0, "workers", self.workers, "0 (threads instead) or more")
        _require(self.window > 0, "window", self.window, "positive")
        _require(self.bad_records >= 0, "bad_records", self.bad_records, "0 or more")


@dataclass(frozen=True)
class ReaderConfig:
    """Everything that decides what the arrays of an example are, besides the record and the seed."""

    segments: int = 16
    groups: int = 2
    """Sequences that the segments of an example are split into for joint attention."""
    subsegments: int = 3
    """Audio spans per segment."""
    audio_frames: int = 60
    """Spectrogram columns per span."""
    audio_tokens: int = 6
    """AUDIOSPAN tokens per span."""
    grid: tuple[int, int] = (12, 20)
    """Patches per image: rows, columns."""
    patch_size: int = 16
    mask_rate: float = 0.25
    """Share of the spans that is a target of one sequence."""
    text2audio_sequences: int = 1
    audio2text_sequences: int = 1
    random_text_sequences: int = 1
    """Sequences of web text per example; 0 where the shards hold none."""
    random_text_stored: int = 1
    """Sequences of a record among which they are chosen."""
    text_length: int = 160
    """Entries of a sequence that is attended to jointly with images."""
    sequence_length: int = 640
    """Entries of a matching or web-text sequence."""
    text_limit: int | None = None
    """Entries of those that may be used; all of them by default."""
    random_text_spans: int | None = None
    """Masked spans of a web text; by default from `mask_rate` and the limit."""
    span_length: int = 15
    """Tokens kept of a target span."""
    span_statistics: Literal["v1", "v2"] = "v2"
    """Lengths of web-text spans: as in YT-Temporal-180M (v1) or YT-Temporal-1B (v2)."""
    matching_audio_rate: float = 1.0
    """How often the matching sequence holds sounds instead of words."""
    neighbour_text_rate: float = 0.8
    """How often a span beside a target is shown as text in audio-to-text."""
    random_scale: bool = True
    scale_min: float = 1.05
    scale_max: float = 1.1
    shrink_both_sides: bool = True
    turn_portraits: bool = True
    blank_images: bool = False
    blank_audio: bool = False
    encode_meta: bool = False
    """Also give the bytes of `meta` and `youtube_id` as numbers."""
    record_digest: bool = False
    """Also give `record_digest int32 [2]`, equal for copies of a record only."""
    image_dtype: Literal["float32", "bfloat16", "uint8"] = "float32"
    """`uint8` images are 255 times larger; the device divides."""
    audio_dtype: Literal["float32", "bfloat16"] = "float32"
    video_src_mode: Literal["stored", "constant"] = "stored"
    """Whether the videos of one example are told apart."""
    parity: bool = False
    """Move words across videos, use the first video's header for all, and truncate as the published reader does."""
    stream: StreamOptions = field(default_factory=StreamOptions)

    def __post_init__(self) -> None:
        _require(self.segments > 0 and self.segments <= 100, "segments", self.segments, "between 1 and 100")
        divides = 0 < self.groups <= self.segments and self.segments % self.groups == 0
        _require(divides, "groups", self.groups, f"a divisor of the {self.segments} segments")
        _require(self.subsegments > 0, "subsegments", self.subsegments, "positive")
        room = self.subsegments * self.audio_frames <= SPECTROGRAM_COLUMNS and self.audio_frames > 0
        _require(room, "audio_frames", self.audio_frames, f"so that all spans fit in {SPECTROGRAM_COLUMNS} columns")
        _require(len(self.grid) == 2 and min(self.grid) > 0, "grid", self.grid, "(rows, columns)")
        targets = self.targets * (self.text2audio_sequences + self.audio2text_sequences)
        _require(self.targets > 0 and targets <= self.rows, "mask_rate", self.mask_rate, "such that targets fit")
        stored = 0 <= self.random_text_sequences <= max(self.random_text_stored, 0)
        _require(stored, "random_text_sequences", self.random_text_sequences, f"0 to {self.random_text_stored}")
        _require(self.limit <= self.sequence_length, "text_limit", self.text_limit, "at most sequence_length")
        body = self.segments * (1 + self.subsegments * self.audio_tokens)
        fits = self.parity or self.matching_audio_rate == 0 or body <= self.limit
        _require(fits, "sequence_length", self.limit, f"at least {body}, the sounds of all segments")
        for name in ("matching_audio_rate", "neighbour_text_rate"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        scales = 0 < self.scale_min <= self.scale_max <= MAX_SCALE
        zoom = (self.scale_min, self.scale_max)
        _require(scales, "scale_min, scale_max", zoom, f"positive, in order and at most {MAX_SCALE:g}")

    @classmethod
    def from_published(cls, mapping: Mapping[str, Any]) -> ReaderConfig:
        """The configuration behind a published one: its sections `data` and `model`, or their keys side by side.

        Raises `UsageError` for a key that is unknown or asks for another record format.
        """
        sections = [mapping.get(name) for name in ("data", "model")]
        sectioned = any(isinstance(section, Mapping) for section in sections)
        flat = {k: v for section in sections for k, v in (section or {}).items()} if sectioned else dict(mapping)
        flat.pop("data", None)
        if unknown := sorted(set(flat) - set(_FIELDS) - set(_FORMAT) - _ELSEWHERE):
            raise UsageError(f"the configuration has unknown keys: {', '.join(map(repr, unknown))}; remove them")
        for key, value in _FORMAT.items():
            _require(flat.get(key, value) == value, key, flat.get(key), f"{value}, as the shards are written")
        values = {_FIELDS[key]: value for key, value in flat.items() if key in _FIELDS}
        if "grid" in values:
            values["grid"] = tuple(values["grid"])
        if flat.get("use_bfloat16"):
            values |= {"image_dtype": "bfloat16", "audio_dtype": "bfloat16"}
        pattern = str(flat.get("train_fns", ""))
        if "ytt180m" in pattern:
            values["span_statistics"] = "v1"
        device = mapping.get("device") if sectioned else None
        stream = StreamOptions(
            files=flat.get("num_train_files"),
            window=(device or {}).get("n_fns_per_cycle", StreamOptions.window),
        )
        return cls(**values, stream=stream)

    def with_parity(self) -> ReaderConfig:
        """The same sizes with the published behaviour throughout, its known defects included."""
        return dataclasses.replace(self, parity=True, video_src_mode="constant")

    @property
    def rows(self) -> int:
        """Audio spans, and so rows of tokens, per example."""
        return self.segments * self.subsegments

    @property
    def targets(self) -> int:
        """Masked rows per sequence."""
        return int(self.rows * self.mask_rate)

    @property
    def limit(self) -> int:
        """Entries of a matching or web-text sequence that may be used."""
        return self.sequence_length if self.text_limit is None else self.text_limit

    @property
    def text_shape(self) -> TextShape:
        """The shape of a web-text sequence."""
        budget = self.random_text_spans
        if budget is None:
            budget = default_budget(self.limit, self.mask_rate)
        return TextShape(self.sequence_length, self.limit, budget, self.span_statistics, self.parity)

    @property
    def span_rows(self) -> int:
        """Rows of `text_spans`."""
        spoken = self.targets * (self.text2audio_sequences + self.audio2text_sequences)
        return spoken + self.text_shape.budget * self.random_text_sequences

    @property
    def scaling(self) -> Scaling | None:
        """The random zoom of training images; none in validation."""
        if not (self.random_scale and self.stream.training):
            return None
        return Scaling(self.scale_min, self.scale_max, self.shrink_both_sides)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r}; it must be {rule}")
