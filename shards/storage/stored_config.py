"""The configuration stored in a folder: read as data, and compared by the names of what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from shards.storage.errors import UserError

CONFIG_NAME = "config.json"
"""The configuration of a data folder or of a run, in that folder."""


class StoredConfigError(UserError):
    """A stored configuration is damaged; the message names the file."""


def parse(content: bytes, path: str) -> dict[str, Any]:
    """Return the object in the bytes of a configuration. Raises `StoredConfigError` naming `path` if it is not one."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise StoredConfigError(
            f"{path!r} is damaged: it is not a JSON object; restore it, or remove it and give its command again"
        )
    return values


def differences(ours: Mapping[str, Any], stored: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the names in `ours` whose values, as JSON, differ in `stored`, with both values."""
    for name, mine in ours.items():
        other = stored.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from differences(mine, other, f"{prefix}{name}.")
        elif json.loads(json.dumps(mine)) != other:
            yield f"{prefix}{name}", mine, other
