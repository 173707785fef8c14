"""The log and the tokenizer of a job's data folder."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from shards import tokenizer as vocabulary
from shards.storage import filesystem
from shards.storage.fetch import cache_folder
from shards.tokenizer_file import TOKENIZER_NAME

LOG_NAME = "job.log"


def keep_log(path: str) -> None:
    """Send Beam's log messages to a file; the terminal shows progress, and one sentence for an error."""
    if not filesystem.is_remote(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=path, level=logging.WARNING, format="%(asctime)s %(name)s %(message)s", force=True)


def log_path(out: str) -> str:
    """Return the path of the job's log: in the data folder, or in the user's cache if the data are in a bucket.

    The temporary folder is not used: it is shared, and a symbolic link that another user created there under a known
    name would be followed.
    """
    if filesystem.is_remote(out):
        return str(cache_folder() / "logs" / f"{hashlib.sha256(out.encode()).hexdigest()[:12]}.log")
    return filesystem.join(out, LOG_NAME)


def vocabulary_of(out: str) -> str:
    """Return the digest of the folder's vocabulary."""
    return vocabulary.digest(filesystem.join(out, TOKENIZER_NAME))
