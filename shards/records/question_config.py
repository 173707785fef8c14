"""Configurations of the question readers: common options, VCR, TVQA and questions about clips.

No heavy imports, so that commands can build and check a configuration first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shards.records.image_options import ImageOptions
from shards.sizes import Scaling
from shards.storage.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

ANSWER_SEPARATOR = (2216, 35, 149)
"""`answer: ` in the published vocabulary."""
RATIONALE_SEPARATOR = (19283, 1406, 35, 149)
"""`rationale: ` in the published vocabulary."""

MOST_SEGMENTS = 7
"""Maximum number of segments of a clip."""

_FROM_PUBLISHED = {
    "output_grid": "grid",
    "vit_patch_size": "patch_size",
    "lang_seq_len": "text_length",
    "do_random_scale": "random_scale",
    "random_scale_min": "scale_min",
    "random_scale_max": "scale_max",
    "shrink_both_sides": "shrink_both_sides",
    "do_flip_if_vertical": "turn_portraits",
}


@dataclass(frozen=True)
class QuestionConfig(ImageOptions):
    """Reader configuration common to all question-answering tasks."""

    training: bool = False
    """Enable random augmentation."""
    grid: tuple[int, int] = (18, 32)
    """Rows and columns of patches."""
    patch_size: int = 16
    """Side of a square image patch, in pixels."""
    text_length: int = 144
    """Tokens per row; longer rows are cut."""
    cut: Literal["question", "end"] = "question"
    """Which part of a row that is too long is cut: the beginning of the question, or, as published, the end."""
    image_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the arrays of images and sounds."""
    answer_separator: tuple[int, ...] = ANSWER_SEPARATOR
    """Token ids of `answer: ` in the vocabulary of the data."""

    def __post_init__(self) -> None:
        if self.text_length < 8:
            raise UsageError(f"text_length is {self.text_length}; it must be at least 8")
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise UsageError(f"grid is {self.grid}; it must be (rows, columns)")

    @property
    def scaling(self) -> Scaling | None:
        """The random zoom of training images; `None` in evaluation."""
        return self.zoom(self.training)

    @property
    def patches(self) -> tuple[int, int]:
        """Number of patches of one image, and number of values per patch."""
        return self.grid[0] * self.grid[1], self.patch_size**2 * 3

    @property
    def floats(self) -> np.dtype:
        """The dtype of images and sound."""
        import ml_dtypes
        import numpy as np

        return np.dtype(ml_dtypes.bfloat16 if self.image_dtype == "bfloat16" else self.image_dtype)


def published_fields(mapping: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a configuration for the published keys; `own` adds the keys of one task.

    Raises `UsageError` for unknown keys.
    """
    names = _FROM_PUBLISHED | dict(own)
    if unknown := sorted(set(mapping) - set(names) - {"use_bfloat16"}):
        raise UsageError(f"the configuration has unknown keys: {', '.join(map(repr, unknown))}; remove them")
    values = {names[key]: value for key, value in mapping.items() if key in names}
    if "grid" in values:
        values["grid"] = tuple(values["grid"])
    return values | ({"image_dtype": "bfloat16"} if mapping.get("use_bfloat16") else {})


@dataclass(frozen=True)
class VcrConfig(QuestionConfig):
    """Reader configuration of VCR questions."""

    mirror: bool = True
    """Show the mirrored image with probability 0.5 in training."""
    rationale_separator: tuple[int, ...] = RATIONALE_SEPARATOR
    """Token ids of `rationale: ` in the vocabulary of the data."""

    @classmethod
    def from_published(cls, mapping: Mapping[str, Any]) -> VcrConfig:
        """Return the configuration for a published mapping. Raises `UsageError` for unknown keys."""
        values = published_fields({k: v for k, v in mapping.items() if k != "num_answers"}, {})
        return cls(**values, cut="end")


@dataclass(frozen=True)
class ClipConfig(QuestionConfig):
    """Reader configuration of questions about a clip."""

    text_length: int = 256
    """Tokens in one row; longer ones are cut."""
    options: int = 5
    """Options of a question."""
    segments: int = 7
    """Segments of a clip."""
    sound: bool = True
    """Read the sound; otherwise questions are answered from images and subtitles alone."""
    shift_sound: bool = True
    """Shift the sound by up to four columns in training."""
    mask_padding: bool = False
    """Mask the padding segments of a short clip; the published models attend to them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.segments <= MOST_SEGMENTS:
            raise UsageError(f"segments is {self.segments}; it must be 1 to {MOST_SEGMENTS}")
        if self.options < 2:
            raise UsageError(f"options is {self.options}; a choice has at least 2")


@dataclass(frozen=True)
class TvqaConfig(ClipConfig):
    """Reader configuration of TVQA questions."""

    @classmethod
    def from_published(cls, mapping: Mapping[str, Any]) -> TvqaConfig:
        """Return the configuration for a published mapping. Raises `UsageError` for unknown keys."""
        values = published_fields(mapping, {"num_answers": "options", "num_segments": "segments"})
        return cls(**values, cut="end")
