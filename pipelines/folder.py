"""The data folder that a job works on: its lock, its log, what it was made with, and what it holds.

A folder is made with one configuration and one vocabulary, settled by the first job and checked by every other.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from pipelines import folder_config
from pipelines.options import PreprocessOptions
from shards import filesystem, manifest, stored_config
from shards import tokenizer as vocabulary
from shards.errors import UsageError
from shards.fetch import cache_folder
from shards.manifest import Manifest

TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = folder_config.NAME
LOG_NAME = "job.log"


def keep_log(path: str) -> None:
    """Send what Beam logs to a file in the data folder; the terminal shows progress and one sentence for an error."""
    if not filesystem.is_remote(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=path, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", force=True)


def log_path(out: str) -> str:
    """Where the job's log is: in the data folder, or in the user's cache if the data are in a bucket.

    The temporary folder is shared, and a link that another user leaves there at a known name would be followed.
    """
    if filesystem.is_remote(out):
        return str(cache_folder() / "logs" / f"{hashlib.sha256(out.encode()).hexdigest()[:12]}.log")
    return filesystem.join(out, LOG_NAME)


def lock_path(out: str) -> str:
    """The lock that whoever changes the folder holds."""
    return filesystem.join(out, ".lock")


def manifest_of(data: str) -> Manifest | None:
    """What the folder holds, `None` before its first generation."""
    return manifest.find(data)


def vocabulary_of(out: str) -> str:
    """The digest of the folder's vocabulary."""
    return vocabulary.digest(filesystem.join(out, TOKENIZER_NAME))


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
