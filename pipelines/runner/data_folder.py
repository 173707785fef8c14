"""The data folder of a job: its lock, its log, its stored config and its tokenizer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shards import tokenizer as vocabulary
from shards.dataset.manifest import lock_path
from shards.storage import filesystem, stored_config
from shards.storage.fetch import cache_folder
from shards.storage.stored_config import CONFIG_NAME
from shards.tokenizer_file import TOKENIZER_NAME

LOG_NAME = "job.log"


@contextlib.contextmanager
def opened(out: str, *, lock: bool = True) -> Iterator[None]:
    """Create a data folder, lock it against other jobs unless `lock` is false, and send log messages to its log.

    Raises `BusyError` if another job holds the lock.
    """
    filesystem.make_folder(out)
    with filesystem.exclusive(lock_path(out)) if lock else contextlib.nullcontext():
        keep_log(log_path(out))
        filesystem.remove_temporary_files(out)
        yield


def commit_config(
    out: str, config: Mapping[str, Any], tokenizer: str, defaults: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Store the config and the tokenizer of a new data folder; an existing folder must have the same config.

    `tokenizer` is `published` or a path. `defaults` are the values of names that a stored config of an earlier version
    lacks. Raises `UsageError` if the stored config differs.
    """
    stored = stored_config.read(out)
    if stored is not None:
        stored_config.require_same(out, config, {**defaults, **stored}, "use the same or another --out")
        return
    filesystem.put_bytes(filesystem.join(out, TOKENIZER_NAME), vocabulary.content(tokenizer))
    try:
        with filesystem.create_new(filesystem.join(out, CONFIG_NAME)) as file:
            file.write((json.dumps(config, indent=1) + "\n").encode())
    except filesystem.ExistsError:
        # Another job started at the same moment; its config must be the same.
        commit_config(out, config, tokenizer, defaults)


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
