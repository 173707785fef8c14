"""The default configuration of the reader for each task."""

from __future__ import annotations

from shards.records.question_config import ClipConfig, QuestionConfig, TvqaConfig, VcrConfig

READERS: dict[str, QuestionConfig] = {"vcr": VcrConfig(), "tvqa": TvqaConfig(), "choices": ClipConfig()}
