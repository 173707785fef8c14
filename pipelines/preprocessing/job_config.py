"""The config of a preprocessing job: stored by the first job of a data folder, and compared by every later one."""

from __future__ import annotations

import json

from pipelines.preprocessing.options import PreprocessOptions
from shards import tokenizer as vocabulary
from shards.storage import filesystem, stored_config
from shards.storage.errors import UsageError
from shards.storage.stored_config import CONFIG_NAME
from shards.tokenizer_file import TOKENIZER_NAME


def commit_config(options: PreprocessOptions) -> str:
    """Store the config of a new data folder, or check that it is the same. Returns its digest."""
    resolved = {
        "video": options.video.resolved(),
        "segments_per_example": options.segments_per_example,
        **_of_assembly(options),
    }
    path = filesystem.join(options.out, CONFIG_NAME)
    content = filesystem.read_existing(path)
    if content is not None:
        stored = stored_config.parse(content, path)
        # Folders of earlier versions were made without what they do not mention.
        for name, ours, theirs in stored_config.differences(
            resolved, _of_assembly(PreprocessOptions(options.out)) | stored
        ):
            raise UsageError(
                f"{options.out!r} was made with {name} {theirs!r}, not {ours!r}; use the same or another --out"
            )
    else:
        words = vocabulary.content(options.video.tokenizer)
        filesystem.put_bytes(filesystem.join(options.out, TOKENIZER_NAME), words)
        try:
            with filesystem.create_new(path) as file:
                file.write((json.dumps(resolved, indent=1) + "\n").encode())
        except filesystem.ExistsError:
            # Another job began at the same moment; ours must be the same.
            return commit_config(options)
    return options.video.digest()


def _of_assembly(options: PreprocessOptions) -> dict[str, dict]:
    """What decides about the examples beside the videos."""
    rules = options.group_rules
    groups = {"max_similarity": rules.max_similarity, "min_objects": rules.min_objects}
    return {"text": options.text.resolved(), "groups": groups | {"probability": rules.probability}}
