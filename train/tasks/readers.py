"""What the reader makes of the questions of each task unless told otherwise, by the task's name."""

from __future__ import annotations

from shards.records.question_config import ClipConfig, QuestionConfig, TvqaConfig, VcrConfig

READERS: dict[str, QuestionConfig] = {"vcr": VcrConfig(), "tvqa": TvqaConfig(), "choices": ClipConfig()}
