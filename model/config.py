"""The shape of a model and the choices of its numerics, as one frozen dataclass with the published presets.

A configuration says everything the network needs and nothing about data files, devices or optimizers. It can be built
from the published two-section mapping; keys that only the reader or the trainer use are accepted there and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from shards.tokens import MASK, PUBLISHED_VOCABULARY_SIZE, SPECIAL_TOKENS

RematPolicy = Literal["none", "dots", "full"]
Use = Literal["auto", "audio", "text", "frames"]
"""What inference uses beside the frames: sound, else text, else nothing; or only what is named."""

DEFAULT_GRID = (18, 32)
"""The grid of published checkpoints unless another is given."""

MASK_TEXT = SPECIAL_TOKENS[MASK]
"""What stands in a prompt where the answer belongs."""

PUBLISHED_NAMES = (
    "base",
    "large",
    *(f"{task}_finetune_{size}" for task in ("vcr", "tvqa") for size in ("base", "large")),
)
"""The published checkpoints that are known by name."""


_COUNTS = (
    *("hidden_size", "head_size", "vocabulary_size", "vision_layers", "audio_layers", "span_layers", "joint_layers"),
    *("patch_size", "pooling_ratio", "mel_bands", "audio_frames", "audio_patch_size", "audio_tokens", "span_length"),
    *("segments", "groups", "subsegments", "text_length", "sequence_length", "spans_to_include", "span_group"),
)
"""Fields that must be positive."""

_LARGEST_LOG_SCALE = 10.0


class ConfigError(ValueError):
    """A configuration that cannot be; the message names the value and what would be right."""


@dataclass(frozen=True)
class Remat:
    """What each stack keeps for its backward pass: everything, the outputs of its dense layers, or its input only."""

    vision: RematPolicy = "none"
    """What the image encoder keeps: everything, the outputs of its dense layers, or its input only."""
    audio: RematPolicy = "none"
    """What the audio encoder keeps: everything, the outputs of its dense layers, or its input only."""
    span: RematPolicy = "none"
    """What the text span encoder keeps: everything, the outputs of its dense layers, or its input only."""
    joint: RematPolicy = "none"
    """What the joint transformer keeps: everything, the outputs of its dense layers, or its input only."""


@dataclass(frozen=True)
class ReserveConfig:
    """The sizes and numerics of a model; the defaults are the base model (docs/spec/model.md 2)."""

    hidden_size: int = 768
    """Width of all transformers and of the vectors that are contrasted."""
    head_size: int = 64
    """Width of an attention head."""
    rotary_size: int = 32
    """Channels of a head that rotary embeddings turn."""
    vocabulary_size: int = PUBLISHED_VOCABULARY_SIZE
    """Number of token ids."""

    vision_layers: int = 12
    """Layers of the image encoder."""
    audio_layers: int = 12
    """Layers of the audio encoder."""
    span_layers: int = 4
    """Layers of the text span encoder."""
    joint_layers: int = 12
    """Layers of the joint transformer."""

    grid: tuple[int, int] = (12, 20)
    """Rows and columns of image patches."""
    patch_size: int = 16
    """Side of a square image patch, in pixels."""
    pooling_ratio: int = 2
    """Patches along each side that become one token of the joint transformer."""
    mel_bands: int = 64
    """Bands of a spectrogram."""
    audio_frames: int = 60
    """Spectrogram columns of an audio span."""
    audio_patch_size: int = 2
    """Spectrogram columns of an audio patch."""
    audio_tokens: int = 6
    """Tokens of an audio span in the joint transformer."""
    span_length: int = 15
    """Tokens of a text span; longer ones are cut."""

    segments: int = 16
    """Segments of an example."""
    groups: int = 2
    """Joint sequences into which the segments of an example are split."""
    subsegments: int = 3
    """Audio spans of a segment."""
    text_length: int = 160
    """Tokens of a sequence that attends jointly with images."""
    sequence_length: int = 640
    """Tokens of a matching or web-text sequence."""
    mask_rate: float = 0.25
    """Share of the spans that are predicted in one sequence."""
    text2audio_sequences: int = 1
    """Sequences of an example that predict spans from text."""
    audio2text_sequences: int = 1
    """Sequences of an example that predict spans from sound."""
    random_text_sequences: int = 1
    """Sequences of web text of an example."""
    random_text_spans: int = 38
    """Masked spans of a sequence of web text."""
    spans_to_include: int = 48
    """Spans of an example that are contrasted."""
    span_choice: Literal["example", "group"] = "example"
    """Keep `spans_to_include` spans of every example, or that many on average over a group of examples."""
    span_group: int = 2
    """Examples of a group for `span_choice`."""
    context_split_probability: float = 0.1
    """Probability that a joint sequence is split as if it showed two videos."""
    mask_invalid_pairs: bool = True
    """Leave pairs with an empty span or a cut token out of the losses; the published system counts them."""
    use_vision: bool = True
    """Encode images; without them frames are zeros."""
    initial_log_scale: float = 1.0
    """Logarithm of the initial scale of the contrastive logits."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type that the network computes in; parameters are float32."""
    rotary: Literal["published", "standard"] = "published"
    """Rotary embeddings of the published weights, or as textbooks define them."""
    parity: bool = False
    """Repeat the published bfloat16 order of operations."""
    attention: Literal["auto", "products", "xla", "cudnn", "fused"] = "auto"
    """Implementation of attention, used where it applies; auto chooses by the device."""
    initialization: Literal["published", "fan_in"] = "published"
    """Deviation of dense layers: as published, or 1 / sqrt(fan_in), which narrow models need."""
    scan_layers: bool = False
    """Stack the parameters of the layers and compile one layer as a loop."""
    unroll_layers: bool = False
    """Unroll that loop."""
    remat: Remat = field(default_factory=Remat)

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        _require(0 < self.mask_rate <= 1, "mask_rate", self.mask_rate, "above 0 and at most 1")
        object.__setattr__(self, "grid", _checked_grid(self.grid, self.pooling_ratio))
        _require(self.hidden_size % self.head_size == 0, "hidden_size", self.hidden_size, "a multiple of head_size")
        _require(
            self.rotary_size % 8 == 0 and 16 <= self.rotary_size <= self.head_size,
            "rotary_size",
            self.rotary_size,
            "a multiple of 8 between 16 and head_size",
        )
        _require(self.span_length < 16, "span_length", self.span_length, "below 16")
        _require(self.segments % self.groups == 0, "segments", self.segments, "a multiple of groups")
        _require(
            self.audio_frames % (self.audio_patch_size * self.audio_tokens) == 0,
            "audio_frames",
            self.audio_frames,
            "a multiple of audio_patch_size * audio_tokens",
        )
        _require(
            self.sequence_length >= self.text_length + self.segments_per_group * self.tokens_per_image,
            "sequence_length",
            self.sequence_length,
            f"at least text_length and the {self.segments_per_group * self.tokens_per_image} image tokens of a group",
        )
        _require(
            self.spans_to_include <= self.spans_per_example,
            "spans_to_include",
            self.spans_to_include,
            f"at most the {self.spans_per_example} spans of an example",
        )
        probability = self.context_split_probability
        _require(0 <= probability <= 1, "context_split_probability", probability, "between 0 and 1")
        scale = self.initial_log_scale
        _require(abs(scale) <= _LARGEST_LOG_SCALE, "initial_log_scale", scale, f"within {_LARGEST_LOG_SCALE:g} of 0")
        for name, allowed in _CHOICES.items():
            _require(getattr(self, name) in allowed, name, getattr(self, name), "one of " + ", ".join(allowed))
        for stack in ("vision", "audio", "span", "joint"):
            policy = getattr(self.remat, stack)
            _require(policy in ("none", "dots", "full"), f"remat.{stack}", policy, "none, dots or full")

    @property
    def heads(self) -> int:
        """Attention heads of every stack."""
        return self.hidden_size // self.head_size

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def patch_values(self) -> int:
        """Numbers in one patch."""
        return self.patch_size**2 * 3

    @property
    def pooled_grid(self) -> tuple[int, int]:
        """Rows and columns of an image's pooled tokens."""
        return self.grid[0] // self.pooling_ratio, self.grid[1] // self.pooling_ratio

    @property
    def tokens_per_image(self) -> int:
        """Pooled tokens of one image."""
        return self.pooled_grid[0] * self.pooled_grid[1]

    @property
    def segments_per_group(self) -> int:
        """Segments the joint transformer sees at once."""
        return self.segments // self.groups

    @property
    def audio_spans(self) -> int:
        """Audio spans of an example."""
        return self.segments * self.subsegments

    @property
    def targets(self) -> int:
        """Target spans of one sequence."""
        return int(self.audio_spans * self.mask_rate)

    @property
    def spans_per_example(self) -> int:
        """Text spans of an example, over all its sequences."""
        masked = self.targets * (self.text2audio_sequences + self.audio2text_sequences)
        return masked + self.random_text_spans * self.random_text_sequences

    def with_grid(self, grid: tuple[int, int]) -> ReserveConfig:
        """Return this model on images of another grid, with the joint length that fits a group of them."""
        rows, columns = _checked_grid(grid, self.pooling_ratio)
        image = (rows // self.pooling_ratio) * (columns // self.pooling_ratio)
        length = self.text_length + self.segments_per_group * image
        return replace(self, grid=(rows, columns), sequence_length=length)

    @classmethod
    def from_published(cls, mapping: Mapping[str, Any]) -> ReserveConfig:
        """Return the model of a published configuration with the sections `model` and `data` (docs/spec/model.md 2).

        It describes the published system, so pairs without a usable span count in the losses as they did there. Keys
        and unknown sections raise `ConfigError`, and so do choices without a published implementation.
        """
        _reject_unknown("the configuration", mapping, {"model", "data", "device", "optimizer"})
        model, data = (_section(mapping, name) for name in ("model", "data"))
        _reject_unknown("section 'model'", model, {*_MODEL_KEYS, "use_bfloat16", "no_vision", "do_rotary", "ablation"})
        _reject_unknown("section 'data'", data, {*_DATA_KEYS, *_READER_KEYS})
        if "use_bfloat16" not in model:
            raise ConfigError("section 'model' has no key 'use_bfloat16'; set it to true or false")
        if not model.get("do_rotary", True):
            raise ConfigError("do_rotary is false: learned positions are not implemented; remove the key")
        if model.get("ablation"):
            raise ConfigError(f"ablation {model['ablation']!r} was never published; remove the key")
        values = {field_name: model[key] for key, field_name in _MODEL_KEYS.items() if key in model}
        values |= {field_name: data[key] for key, field_name in _DATA_KEYS.items() if key in data}
        return cls(
            dtype="bfloat16" if model["use_bfloat16"] else "float32",
            use_vision=not model.get("no_vision", False),
            mask_invalid_pairs=False,
            **values,
        )


_CHOICES = {
    "span_choice": ("example", "group"),
    "dtype": ("float32", "bfloat16"),
    "rotary": ("published", "standard"),
    "attention": ("auto", "products", "xla", "cudnn", "fused"),
    "initialization": ("published", "fan_in"),
}
_MODEL_KEYS = {
    "hidden_size": "hidden_size",
    "size_per_head": "head_size",
    "joint_num_layers": "joint_layers",
    "vit_num_layers": "vision_layers",
    "audio_num_layers": "audio_layers",
    "span_num_layers": "span_layers",
    "audio_patch_size": "audio_patch_size",
    "audio_seq_length": "audio_frames",
    "audio_token_length": "audio_tokens",
    "output_grid": "grid",
    "vit_patch_size": "patch_size",
    "vit_pooling_ratio": "pooling_ratio",
    "text_span_length": "span_length",
    "_augment_video_src_idx_prob": "context_split_probability",
}
_DATA_KEYS = {
    "num_mels": "mel_bands",
    "mask_rate": "mask_rate",
    "num_audio2text_seqs": "audio2text_sequences",
    "num_text2audio_seqs": "text2audio_sequences",
    "num_text_seqs": "random_text_sequences",
    "num_segments": "segments",
    "num_segment_groups": "groups",
    "num_audio_subsegments": "subsegments",
    "seq_len": "sequence_length",
    "lang_seq_len": "text_length",
    "num_text_spans_to_include": "spans_to_include",
    "text_span_budget": "random_text_spans",
}
_READER_KEYS = (
    "train_fns",
    "num_train_files",
    "use_audio_token_prob",
    "random_scale_max",
    "random_scale_min",
    "fft_hop_length",
    "fft_window_size",
    "sample_rate",
    "spec_size",
    "num_text_seqs_in_record",
    "convert_extra_span_to_text_prob",
    "do_random_scale",
    "shrink_both_sides",
    "do_flip_if_vertical",
    "max_text_seq_len",
    "encode_meta",
    "disable_imgs_dataloader",
    "disable_audio_dataloader",
)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value!r}; it must be {rule}")


def _checked_grid(grid: tuple[int, int], pooling_ratio: int) -> tuple[int, int]:
    sides = tuple(grid)
    right = len(sides) == 2 and all(isinstance(side, int) and side > 0 and side % pooling_ratio == 0 for side in sides)
    _require(right, "grid", sides, f"(rows, columns), both positive multiples of {pooling_ratio}")
    return sides[0], sides[1]


def _section(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(mapping.get(name), Mapping):
        raise ConfigError(f"the configuration has no section {name!r}; it needs the sections 'model' and 'data'")
    return mapping[name]


def _reject_unknown(place: str, mapping: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(mapping) - known):
        raise ConfigError(f"{place} has unknown keys: {', '.join(map(repr, unknown))}; remove or correct them")


BASE = ReserveConfig()
"""The published base model: 316 million parameters."""

LARGE = ReserveConfig(hidden_size=1024, vision_layers=24, joint_layers=24)
"""The published large model: 853 million parameters."""

TINY = ReserveConfig(
    hidden_size=64,
    head_size=32,
    vocabulary_size=256,
    vision_layers=1,
    audio_layers=1,
    span_layers=1,
    joint_layers=1,
    grid=(4, 4),
    segments=8,
    groups=1,
    text_length=160,
    sequence_length=192,
    random_text_sequences=0,
    random_text_spans=0,
    spans_to_include=12,
    initial_log_scale=3.0,
    dtype="float32",
    rotary="standard",
    initialization="fan_in",
)
"""The demonstration's model: learns on two processor cores in minutes."""
