"""The configuration of a training run: model, optimizer, batch, mesh and intervals; the presets are in `train.configs`.

A configuration has no paths. What depends on the data (vocabulary, segments of an example) is resolved once, by
`fit_to_data`, and stored beside the checkpoints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_type_hints

from model.config import BASE as BASE_MODEL
from model.config import LARGE as LARGE_MODEL
from model.config import TINY as TINY_MODEL
from model.config import ConfigError, ReserveConfig
from shards.reading.cache import CacheOptions
from shards.reading.config import ReaderConfig, SamplingOptions, StreamOptions
from shards.storage.errors import UsageError

UNTRAINED = {"random:tiny": TINY_MODEL, "random:base": BASE_MODEL, "random:large": LARGE_MODEL}
"""Names for untrained weights, to compare with."""

_MOST_SEGMENTS_TOGETHER = 8
_TOKENS_OF_A_SEGMENT = 24
"""Entries of a matching sequence per segment that leave room for its sounds and for words (192 for 8 segments)."""

MAX_LEARNING_RATE = 100.0
MAX_WEIGHT_DECAY = 1e4
"""Bounds beyond which no update is of use: a larger number is a mistake."""

_MODEL_LAYOUT = ("remat", "attention", "unroll_layers")
"""Fields of a model that do not change the numbers of a run."""

_FROM_PUBLISHED = {
    "learning_rate": "learning_rate",
    "num_train_steps": "total_steps",
    "num_warmup_steps": "warmup_steps",
    "weight_decay_rate": "weight_decay",
    "beta_1": "beta_1",
    "beta_2": "beta_2",
    "eps": "eps",
    "final_lr_scale": "final_scale",
    "do_bias_correction": "bias_correction",
}
_NEEDED = ("learning_rate", "num_train_steps", "num_warmup_steps")
_ELSEWHERE = {"use_bfloat16_adam", "use_bfloat16_weights", "adafactor", "num_train_steps_override"}
"""Published keys that are translated, refused, or the loop's."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; the defaults are those of the published base model (docs/spec/training.md 1.5)."""

    learning_rate: float = 4e-4
    """The peak."""
    total_steps: int = 750_000
    """Steps until the schedule has reached its end."""
    warmup_steps: int = 3_750
    """Steps until the learning rate has reached its peak."""
    final_scale: float = 0.02
    """Share of the peak that is left at the end of pretraining; 1 keeps the rate constant after the warm-up."""
    weight_decay: float = 0.1
    """Decoupled weight decay."""
    beta_1: float = 0.9
    """Decay of Adam's first moment."""
    beta_2: float = 0.98
    """Decay of Adam's second moment."""
    eps: float = 1e-6
    """Added to the denominator of Adam's update."""
    bias_correction: bool = False
    """Finetuning always corrects."""
    moments: Literal["bfloat16", "float32"] = "bfloat16"
    """Type in which Adam's moments are stored; bfloat16, as published, takes half the memory."""

    def __post_init__(self) -> None:
        _require_range("learning_rate", self.learning_rate, MAX_LEARNING_RATE, above=0)
        steps = 0 <= self.warmup_steps <= self.total_steps
        _require(steps, "warmup_steps", self.warmup_steps, f"between 0 and the {self.total_steps} total_steps")
        _require_range("final_scale", self.final_scale, 1)
        _require_range("weight_decay", self.weight_decay, MAX_WEIGHT_DECAY)
        _require_range("eps", self.eps, 1, above=0)
        for name in ("beta_1", "beta_2"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        _require(self.moments in ("bfloat16", "float32"), "moments", self.moments, "bfloat16 or float32")

    @classmethod
    def from_published(cls, mapping: Mapping[str, Any]) -> OptimizerConfig:
        """Return the optimizer of a published configuration or its section `optimizer` (docs/spec/training.md 1.5).

        Raises `UsageError` for unknown keys, for missing ones, and for bfloat16 master weights.
        """
        section = mapping.get("optimizer", mapping)
        if unknown := sorted(set(section) - set(_FROM_PUBLISHED) - _ELSEWHERE):
            raise UsageError(f"section 'optimizer' has unknown keys: {', '.join(map(repr, unknown))}; remove them")
        if missing := [key for key in _NEEDED if key not in section]:
            raise UsageError(f"section 'optimizer' has no {', '.join(map(repr, missing))}; set them")
        if section.get("use_bfloat16_weights") or section.get("adafactor"):
            raise UsageError("use_bfloat16_weights and adafactor are not implemented; set them to false")
        values = {name: section[key] for key, name in _FROM_PUBLISHED.items() if key in section}
        moments = "bfloat16" if section.get("use_bfloat16_adam", True) else "float32"
        return cls(**{"eps": 1e-8, **values}, moments=moments)


@dataclass(frozen=True)
class MeshConfig:
    """How the devices are laid out; the axes multiply to their number.

    `data` copies the weights and splits the batch; `fsdp` splits both; `tensor` splits single layers.
    """

    data: int = -1
    """-1 takes all devices that the other axes leave."""
    fsdp: int = 1
    """Devices that split weights and batch."""
    tensor: int = 1
    """Devices that split single layers."""

    def __post_init__(self) -> None:
        for name in ("fsdp", "tensor"):
            _require(getattr(self, name) > 0, f"mesh.{name}", getattr(self, name), "positive")
        _require(self.data > 0 or self.data == -1, "mesh.data", self.data, "positive, or -1 for the devices left over")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What pretraining and finetuning share: batch, devices, and how often the loop does what."""

    LAYOUT: ClassVar[tuple[str, ...]] = (
        *("mesh", "microbatches", "log_every", "checkpoint_every", "keep", "skip_limit"),
    )
    """Fields that do not change the numbers of a run."""

    batch_size: int
    """Examples of a step, on all devices together."""
    microbatches: int = 1
    """Parts that a device takes its examples in, to save memory; the update is that of the whole batch."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    seed: int = 0
    """Seed of new weights, of masks and of the order of examples."""
    log_every: int = 50
    """Steps between two lines of metrics; each line is about one step."""
    checkpoint_every: int
    """Steps between two checkpoints."""
    keep: int
    """Number of newest checkpoints to keep."""
    skip_limit: int = 50
    """Updates in a row that may be skipped because they are not finite before the run stops."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "microbatches", "log_every", "checkpoint_every", "keep", "skip_limit"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "at least 0 and below 2**32")

    def numbers(self) -> dict[str, Any]:
        """Return everything that decides the numbers of a run, as JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in self.LAYOUT}


@dataclass(frozen=True)
class InputConfig(SamplingOptions):
    """The choices of the reader that the model does not fix."""

    PREFIX = "input."

    split: str = "train"
    """Split of the data folder to train on."""
    matching_audio_rate: float = field(default=0.5, kw_only=True)
    """Probability that the matching sequence contains audio instead of words."""
    window: int = 128
    """Shards whose records are shuffled together."""
    bad_records: int = 0
    """Number of damaged records that are replaced by others before the run stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.window > 0, "input.window", self.window, "positive")
        _require(self.bad_records >= 0, "input.bad_records", self.bad_records, "0 or more")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A pretraining run."""

    LAYOUT = (*(*RunConfig.LAYOUT, "layout", "steps", "evaluate_every", "evaluation_split", "keep_every"),)

    model: ReserveConfig
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    layout: Literal["given", "auto"] = "given"
    """"auto" chooses mesh, recomputation and microbatches for known accelerators."""
    input: InputConfig = field(default_factory=InputConfig)
    batch_size: int = field(default=1024, kw_only=True)
    """Examples of a step, on all devices together."""
    steps: int = 750_000
    """The last step."""
    grids: tuple[tuple[int, int], ...] = ()
    """Image grids of the steps, in turn, with a zoom that fills each with 16:9 videos; the model's own if empty."""
    adapt_to_data: bool = False
    """Take the size of the vocabulary and the segments of an example from the data instead of the model."""
    evaluate_every: int | None = None
    """Steps between two evaluations; none by default."""
    evaluation_split: str = "val"
    """Split of the data folder for `evaluate_every`."""
    checkpoint_every: int = field(default=7_500, kw_only=True)
    """Steps between two checkpoints."""
    keep: int = field(default=3, kw_only=True)
    """Number of newest checkpoints to keep."""
    keep_every: int | None = None
    """Checkpoints of multiples of this step are never removed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.steps > 0, "steps", self.steps, "positive")
        for grid in self.grids:
            fits = len(grid) == 2 and all(side > 0 and side % self.model.pooling_ratio == 0 for side in grid)
            _require(fits, "grids", grid, f"(rows, columns), both positive multiples of {self.model.pooling_ratio}")
        for name in ("evaluate_every", "keep_every"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "positive, or none")

    def reader(self, cache: CacheOptions | None = None, workers: int | None = None) -> ReaderConfig:
        """Return the reader whose arrays fit the model, with the processes of `StreamOptions.workers`.

        Raises `UsageError` for sizes that no reader can fill.
        """
        model, given = self.model, self.input
        return ReaderConfig(
            segments=model.segments,
            groups=model.groups,
            subsegments=model.subsegments,
            audio_frames=model.audio_frames,
            audio_tokens=model.audio_tokens,
            grid=model.grid,
            patch_size=model.patch_size,
            mask_rate=model.mask_rate,
            text2audio_sequences=model.text2audio_sequences,
            audio2text_sequences=model.audio2text_sequences,
            random_text_sequences=model.random_text_sequences,
            text_length=model.text_length,
            sequence_length=model.sequence_length,
            random_text_spans=model.random_text_spans or None,
            span_length=model.span_length,
            **given.sampling(),
            image_dtype=model.dtype,
            audio_dtype=model.dtype,
            record_digest=True,
            stream=StreamOptions(
                split=given.split,
                window=given.window,
                bad_records=given.bad_records,
                workers=workers,
                cache=cache,
            ),
        )

    def turns(self) -> list[TrainConfig]:
        """Return this run on each of its grids, in the order in which steps take them."""
        return [
            replace(
                self, grids=(), model=self.model.with_grid(grid), input=replace(self.input, scale_max=image_zoom(grid))
            )
            for grid in self.grids
        ] or [self]

    def numbers(self) -> dict[str, Any]:
        """Return everything that decides the numbers of a run, as JSON."""
        values = super().numbers()
        return values | {"model": {name: v for name, v in values["model"].items() if name not in _MODEL_LAYOUT}}


def from_json(values: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration stored in a work folder; other keys are ignored."""
    return _filled(TrainConfig, values)


def fit_to_data(config: TrainConfig, vocabulary_size: int, segments: int) -> TrainConfig:
    """Return this run on data with a vocabulary and segments per example of these sizes.

    Raises `UsageError` if they differ from the model's and `config.adapt_to_data` is off.
    """
    model = config.model
    if (model.vocabulary_size, model.segments) == (vocabulary_size, segments):
        return config
    if not config.adapt_to_data:
        raise UsageError(
            f"the data has {vocabulary_size} tokens and {segments} segments per example and the model"
            f" {model.vocabulary_size} and {model.segments}; read other data or pass --adapt-to-data"
        )
    groups = -(-segments // _MOST_SEGMENTS_TOGETHER)
    if segments % groups:
        raise UsageError(f"{segments} segments per example cannot be cut in {groups} equal groups; pack other shards")
    together = segments // groups
    text_length = model.text_length * together // model.segments_per_group
    joint = text_length + together * model.tokens_per_image
    spoken = int(segments * model.subsegments * model.mask_rate)
    spans = spoken * (model.text2audio_sequences + model.audio2text_sequences)
    spans += model.random_text_spans * model.random_text_sequences
    try:
        fitted = replace(
            model,
            vocabulary_size=vocabulary_size,
            segments=segments,
            groups=groups,
            text_length=text_length,
            sequence_length=max(joint, _TOKENS_OF_A_SEGMENT * segments),
            spans_to_include=min(model.spans_to_include * segments // model.segments, spans),
        )
    except ConfigError as error:
        raise UsageError(f"the model does not fit the data: {error}") from None
    return replace(config, model=fitted)


def _filled(kind: type, values: Mapping[str, Any]) -> Any:
    """Return the dataclass `kind` with its fields taken from JSON values, where lists were tuples."""
    types = get_type_hints(kind)
    fields = {}
    for name in types.keys() & values.keys():
        value = values[name]
        if dataclasses.is_dataclass(types[name]):
            value = _filled(types[name], value)
        fields[name] = _tuples(value)
    return kind(**fields)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r}; it must be {rule}")


def _require_range(name: str, value: float, most: float, above: float | None = None) -> None:
    """Raise `UsageError` unless a number is at most `most` and at least 0, or above `above`; NaN is neither."""
    low = value > above if above is not None else value >= 0
    lower = "at least 0" if above is None else f"above {above:g}"
    _require(low and value <= most, name, value, f"{lower} and at most {most:g}")


def image_zoom(grid: tuple[int, int]) -> float:
    """Return the largest zoom of images with which a 16:9 video fills the grid (docs/spec/training.md 5)."""
    return max(min(grid) / max(grid) * 16 / 9, 1) + 0.1
