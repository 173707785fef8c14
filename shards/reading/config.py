"""Configuration of the reader: sizes, rates, budgets and policies of an example, and options of the stream.

The defaults are those of the published base model, with known defects of the published reader corrected;
`ReaderConfig.with_parity` restores the published behaviour for comparisons.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from shards.reading.cache import CacheOptions
from shards.records.image_options import ImageOptions
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
"""Published keys and the corresponding fields."""

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
"""Published keys that do not affect examples, or that are read separately."""


_TOKENS_PER_MASK = 5.5

MAX_SCALE = 100.0
"""Maximum random zoom of an image; beyond it a frame is a single pixel."""


@dataclass(frozen=True)
class TextShape:
    """Sizes of a web-text sequence."""

    length: int
    """Entries of the sequence."""
    limit: int
    """Maximum number of entries that are used."""
    budget: int
    """Number of masked rows."""
    statistics: str
    """Key of `random_text.SPAN_LENGTHS`."""
    parity: bool
    """Allow the masked text to exceed `limit`, as the published reader does."""


def default_budget(length: int, mask_rate: float) -> int:
    """Return the number of masked rows of a text of `length` tokens (docs/spec/shards.md 12.2)."""
    return int(length / (_TOKENS_PER_MASK / mask_rate - _TOKENS_PER_MASK + 1))


@dataclass(frozen=True)
class StreamOptions:
    """Options of a stream of batches."""

    training: bool = True
    """Endless and shuffled with augmentation; if false, one deterministic pass in order. On several hosts such a pass
    drops the last records that do not divide evenly; `shards.reading.evaluation.Pass` pads the last batch instead."""
    split: str | None = None
    """Split of the data folder; required if it has several."""
    files: int | None = None
    """The number of files of a published pattern such as `train{:05d}of32800.tfrecord`."""
    window: int = 128
    """Number of shards whose records are shuffled together."""
    bad_records: int = 0
    """Maximum number of damaged records, which are replaced by other records, before the reader fails."""
    workers: int | None = None
    """Number of worker processes; 0 uses threads of this process. Default: all cores but one, at most 16, on a machine
    with 4 cores or more, and 0 on a smaller one."""
    threads: int | None = None
    """Number of threads without worker processes; default: the number of cores."""
    cache: CacheOptions | None = None
    """Local cache of shards in a bucket; default: no cache."""

    def __post_init__(self) -> None:
        _require(self.workers is None or self.workers >= 0, "workers", self.workers, "0 (threads instead) or more")
        _require(self.window > 0, "window", self.window, "positive")
        _require(self.bad_records >= 0, "bad_records", self.bad_records, "0 or more")


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(ImageOptions):
    """The choices of the reader of pretraining examples that do not depend on the model."""

    PREFIX: ClassVar[str] = ""
    """The prefix of names in messages."""

    matching_audio_rate: float = 1.0
    """Probability that the matching sequence contains audio instead of words."""
    neighbour_text_rate: float = 0.8
    """Probability that a span next to a target is shown as text in audio-to-text."""
    scale_min: float = 1.05
    """Least zoom of images."""
    text_limit: int | None = None
    """Maximum number of entries of a matching or web-text sequence that are used; default: all."""

    def __post_init__(self) -> None:
        for name in ("matching_audio_rate", "neighbour_text_rate"):
            _require(0 <= getattr(self, name) <= 1, f"{self.PREFIX}{name}", getattr(self, name), "between 0 and 1")
        scales = 0 < self.scale_min <= self.scale_max <= MAX_SCALE
        zoom = (self.scale_min, self.scale_max)
        rule = f"positive, in order and at most {MAX_SCALE:g}"
        _require(scales, f"{self.PREFIX}scale_min, scale_max", zoom, rule)

    def sampling(self) -> dict[str, Any]:
        """Return these choices by name, for another configuration that shares them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(SamplingOptions)}


@dataclass(frozen=True)
class ReaderConfig(SamplingOptions):
    """Everything that determines the arrays of an example besides the record and the seed."""

    segments: int = 16
    groups: int = 2
    """Number of sequences that the segments of an example are split into for joint attention."""
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
    """Share of the spans that are targets of one sequence."""
    text2audio_sequences: int = 1
    audio2text_sequences: int = 1
    random_text_sequences: int = 1
    """Web-text sequences per example; 0 if the shards contain none."""
    random_text_stored: int = 1
    """Web-text sequences of a record from which they are sampled."""
    text_length: int = 160
    """Entries of a sequence for joint attention with images."""
    sequence_length: int = 640
    """Entries of a matching or web-text sequence."""
    random_text_spans: int | None = None
    """Masked spans of a web text; default: computed from `mask_rate` and the limit."""
    span_length: int = 15
    """Tokens kept of a target span."""
    span_statistics: Literal["v1", "v2"] = "v2"
    """Lengths of web-text spans: as in YT-Temporal-180M (v1) or YT-Temporal-1B (v2)."""
    blank_images: bool = False
    blank_audio: bool = False
    encode_meta: bool = False
    """Also return the bytes of `meta` and `youtube_id` as integers."""
    record_digest: bool = False
    """Also return `record_digest int32 [2]`, which is equal for copies of a record only."""
    image_dtype: Literal["float32", "bfloat16", "uint8"] = "float32"
    """`uint8` images are in [0, 255] and are divided by 255 on the device; other images are in [0, 1]."""
    audio_dtype: Literal["float32", "bfloat16"] = "float32"
    video_src_mode: Literal["stored", "constant"] = "stored"
    """Whether `video_src_index` has the stored numbers of the videos or 1 for all."""
    parity: bool = False
    """Move words across videos, use the first video's header for all, and truncate as the published reader does."""
    stream: StreamOptions = field(default_factory=StreamOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.segments > 0 and self.segments <= 100, "segments", self.segments, "between 1 and 100")
        divides = 0 < self.groups <= self.segments and self.segments % self.groups == 0
        _require(divides, "groups", self.groups, f"a divisor of the {self.segments} segments")
        _require(self.subsegments > 0, "subsegments", self.subsegments, "positive")
        fits = self.subsegments * self.audio_frames <= SPECTROGRAM_COLUMNS and self.audio_frames > 0
        _require(fits, "audio_frames", self.audio_frames, f"so that all spans fit in {SPECTROGRAM_COLUMNS} columns")
        _require(len(self.grid) == 2 and min(self.grid) > 0, "grid", self.grid, "(rows, columns)")
        targets = self.targets * (self.text2audio_sequences + self.audio2text_sequences)
        _require(self.targets > 0 and targets <= self.rows, "mask_rate", self.mask_rate, "such that targets fit")
        stored = 0 <= self.random_text_sequences <= max(self.random_text_stored, 0)
        _require(stored, "random_text_sequences", self.random_text_sequences, f"0 to {self.random_text_stored}")
        _require(self.limit <= self.sequence_length, "text_limit", self.text_limit, "at most sequence_length")
        body = self.segments * (1 + self.subsegments * self.audio_tokens)
        fits = self.parity or self.matching_audio_rate == 0 or body <= self.limit
        _require(fits, "sequence_length", self.limit, f"at least {body}, the audio tokens of all segments")

    @classmethod
    def from_published(cls, mapping: Mapping[str, Any]) -> ReaderConfig:
        """Return the configuration for a published mapping: with the sections `data` and `model`, or with their keys.

        Raises `UsageError` for a key that is unknown or that requires another record format.
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
        """Return a copy with the published behaviour, including its known defects."""
        return dataclasses.replace(self, parity=True, video_src_mode="constant")

    @property
    def rows(self) -> int:
        """Audio spans per example, which is the number of token rows."""
        return self.segments * self.subsegments

    @property
    def targets(self) -> int:
        """Masked rows per sequence."""
        return int(self.rows * self.mask_rate)

    @property
    def limit(self) -> int:
        """Maximum number of entries of a matching or web-text sequence that are used."""
        return self.sequence_length if self.text_limit is None else self.text_limit

    @property
    def text_shape(self) -> TextShape:
        """The sizes of a web-text sequence."""
        budget = self.random_text_spans
        if budget is None:
            budget = default_budget(self.limit, self.mask_rate)
        return TextShape(self.sequence_length, self.limit, budget, self.span_statistics, self.parity)

    @property
    def span_rows(self) -> int:
        """Number of rows of `text_spans`."""
        spoken = self.targets * (self.text2audio_sequences + self.audio2text_sequences)
        return spoken + self.text_shape.budget * self.random_text_sequences

    @property
    def scaling(self) -> Scaling | None:
        """The random zoom of training images; none in validation."""
        return self.zoom(self.stream.training)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r}; it must be {rule}")
