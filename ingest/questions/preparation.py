"""Configurations of the preparation of VCR, TVQA and custom questions.

The defaults correct known defects of the released preparations. Commands check a configuration before they import
anything that decodes images or videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.records.question_config import MOST_SEGMENTS
from shards.storage.errors import UsageError

Rate = Literal["true", "published"]
"""The sample rate of the sound relative to the mel bank: the correct one, or as released, 2.6 % too low."""

TVQA_FILES = {"train": "tvqa_train.jsonl", "val": "tvqa_val.jsonl", "test": "tvqa_test_public.jsonl"}
TVQA_QUESTIONS = "tvqa_qa_release"
"""The folder of these files in the official layout."""


@dataclass(frozen=True)
class VcrPreparation:
    """Preparation of VCR; each field is a known defect of the released preparation, corrected by default."""

    mirror_pixels: bool = True
    """Mirror the image together with its boxes; the released preparation mirrors the boxes only."""
    sides_as_words: bool = True
    """Do not mirror images whose text has the word left or right; the released preparation also matches `bright`."""
    all_names: bool = True
    """Name every object of a mention; the released preparation names the first two."""
    draw_unmentioned: bool = True
    """Also draw objects that are not mentioned and are the only ones of their class."""

    @classmethod
    def published(cls) -> VcrPreparation:
        """Return the released preparation."""
        return cls(mirror_pixels=False, sides_as_words=False, all_names=False)


@dataclass(frozen=True)
class TvqaPreparation:
    """Preparation of TVQA; the defaults correct known defects of the released preparation."""

    rate: Rate = "true"
    """Sample rate of the sound; "published" shifts frequencies as in the training data of the published models."""
    clamp_moment: bool = False
    """Clip the moment stated in the question to 0 to 100 percent of the segments."""

    @classmethod
    def published(cls) -> TvqaPreparation:
        """Return the released preparation."""
        return cls(rate="published")


@dataclass(frozen=True)
class ChoicesPreparation:
    """Preparation of a custom data set."""

    options: int | None = None
    """Number of options of every question; default: that of most questions."""
    segments: int = 1
    """Number of segments of 4.67 seconds of a video, at most 7, around the middle of `start` to `end`."""
    sound: bool = False
    """Store the sound of videos; a data set of images has none."""

    def __post_init__(self) -> None:
        if not 1 <= self.segments <= MOST_SEGMENTS:
            raise UsageError(f"segments is {self.segments}; it must be 1 to {MOST_SEGMENTS}")
