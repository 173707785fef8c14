"""How questions are prepared: VCR, TVQA, and a person's own; the defaults repair what the released ones do wrong.

Commands check these before anything is imported that opens a picture or a video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.records.question_config import MOST_SEGMENTS
from shards.storage.errors import UsageError

Rate = Literal["true", "published"]
"""Which sound the mel bank sees: at its own rate, or as released, 2.6 % too low."""

TVQA_FILES = {"train": "tvqa_train.jsonl", "val": "tvqa_val.jsonl", "test": "tvqa_test_public.jsonl"}
TVQA_QUESTIONS = "tvqa_qa_release"
"""The folder of these files in the official layout."""


@dataclass(frozen=True)
class VcrPreparation:
    """How questions are prepared; each field is a known defect of the released preparation, repaired by default."""

    mirror_pixels: bool = True
    """Mirror the picture together with its boxes; the released one moves the boxes only."""
    sides_as_words: bool = True
    """Keep the picture as it is where the text says left or right; the released one also stops at `bright`."""
    all_names: bool = True
    """Name every object of a mention; the released one names the first two."""
    draw_unmentioned: bool = True
    """Draw also the objects that nobody mentions and that are the only ones of their class."""

    @classmethod
    def published(cls) -> VcrPreparation:
        """The released preparation."""
        return cls(mirror_pixels=False, sides_as_words=False, all_names=False)


@dataclass(frozen=True)
class TvqaPreparation:
    """How questions are prepared; the defaults repair known defects of the released preparation."""

    rate: Rate = "true"
    """Sound at the rate of the mel bank; "published" shifts frequencies as the published models have learned them."""
    clamp_moment: bool = False
    """Keep the moment that the question states within 0 to 100 percent of the segments."""

    @classmethod
    def published(cls) -> TvqaPreparation:
        """The released preparation."""
        return cls(rate="published")


@dataclass(frozen=True)
class ChoicesPreparation:
    """How the questions of one data set are prepared."""

    options: int | None = None
    """Options of every question; as many as most questions have by default."""
    segments: int = 1
    """Segments of 4.67 seconds that are seen of a video, at most 7, around the middle of `start` to `end`."""
    sound: bool = False
    """Keep the sound of videos; a data set of pictures has none."""

    def __post_init__(self) -> None:
        if not 1 <= self.segments <= MOST_SEGMENTS:
            raise UsageError(f"segments is {self.segments}; it must be 1 to {MOST_SEGMENTS}")
