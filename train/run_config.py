"""The stored configuration of a run: read in one place, compared by the names of what differs."""

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


def check_same(workdir: str, ours: Mapping[str, Any], stored: Mapping[str, Any], way_out: str) -> None:
    """Raise `UsageError` naming every value of `ours` that the stored configuration has otherwise.

    `way_out` says what to do about it.
    """
    stored_config.require_same(workdir, ours, stored, way_out)
