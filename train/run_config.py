"""Read and write the stored configuration of a training run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from shards.storage import filesystem, stored_config
from shards.storage.errors import UserError
from shards.storage.stored_config import CONFIG_NAME, StoredConfigError


def read_config(workdir: str) -> dict[str, Any]:
    """Read the stored configuration of the run in a work folder. Raises `StoredConfigError` if it is damaged."""
    path = filesystem.join(workdir, CONFIG_NAME)
    return stored_config.parse(filesystem.read_bytes(path), path)


def parsed(workdir: str, parse: Callable[[Mapping[str, Any]], Any], stored: Mapping[str, Any]) -> Any:
    """Return `parse(stored)`. Raises `StoredConfigError` for values that no configuration has."""
    try:
        return parse(stored)
    except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
        path = filesystem.join(workdir, CONFIG_NAME)
        raise StoredConfigError(f"{path!r} is damaged: {type(error).__name__} {error}; restore it") from None


def write_config(workdir: str, values: Mapping[str, Any]) -> None:
    """Store the configuration of a run."""
    path = filesystem.join(workdir, CONFIG_NAME)
    filesystem.write_bytes(path, (json.dumps(values, indent=1) + "\n").encode())
