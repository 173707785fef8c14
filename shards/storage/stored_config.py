"""The configuration stored in a folder: parsed as data and compared key by key."""

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


def differences(
    current: Mapping[str, Any], stored: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, current value, stored value) for each key of `current` whose JSON value differs in `stored`."""
    for name, value in current.items():
        other = stored.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from differences(value, other, f"{prefix}{name}.")
        elif json.loads(json.dumps(value)) != other:
            yield f"{prefix}{name}", value, other
