"""The models of a config, loaded once per process."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.config import VideoConfig, timing_file
from ingest.timing import TimingModel
from shards import tokenizer as vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Models:
    """The vocabulary of a config, and its timing model if it has one."""

    tokenizer: Tokenizer
    timing: TimingModel | None


@functools.lru_cache(maxsize=4)
def load_models(tokenizer: str, timing_model: str) -> Models:
    """Return the models behind the values of `VideoConfig`. Raises what the loaders raise."""
    timing_path = timing_file(timing_model)
    return Models(
        vocabulary.load_tokenizer(tokenizer),
        TimingModel.load(timing_path) if timing_path else None,
    )


def check_config(config: VideoConfig) -> None:
    """Load what the config names, so that a wrong path is known before any work. Raises what the loaders raise."""
    load_models(config.tokenizer, config.timing_model)
    if config.listening.hears:
        # Most configs hear nothing, and need none of what recognises speech.
        from ingest.speech import word_source as listening

        listening.check(config.listening)
