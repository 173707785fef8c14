"""The config of a preprocessing job: stored by the first job of a data folder, and compared by every later one."""

from __future__ import annotations

from typing import Any

from pipelines.preprocessing.options import PreprocessOptions
from pipelines.runner import data_folder


def commit_config(options: PreprocessOptions) -> str:
    """Store the config of a new data folder, or check that it is the same, and return its digest."""
    config = {
        "video": options.video.resolved(),
        "segments_per_example": options.segments_per_example,
        **_assembly_config(options),
    }
    defaults = _assembly_config(PreprocessOptions(options.out))
    data_folder.commit_config(options.out, config, options.video.tokenizer, defaults)
    return options.video.digest()


def _assembly_config(options: PreprocessOptions) -> dict[str, dict[str, Any]]:
    """Return the values that determine how examples are assembled from segments."""
    rules = options.group_rules
    groups = {"max_similarity": rules.max_similarity, "min_objects": rules.min_objects}
    return {"text": options.text.resolved(), "groups": groups | {"probability": rules.probability}}
