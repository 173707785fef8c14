"""The configuration stored in a folder: parsed as data, and compared key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError

CONFIG_NAME = "config.json"
"""The configuration of a data folder or of a run, in that folder."""

_MAX_NAMED = 5
"""Differences that a message names."""


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


def read(folder: str) -> dict[str, Any] | None:
    """Return the configuration stored in a folder, or `None` without one.

    Raises `StoredConfigError` if it is damaged.
    """
    path = filesystem.join(folder, CONFIG_NAME)
    content = filesystem.read_existing(path)
    return None if content is None else parse(content, path)


def require_same(folder: str, requested: Mapping[str, Any], stored: Mapping[str, Any], remedy: str) -> None:
    """Raise `UsageError` if a value of `requested` differs in the configuration stored in a folder.

    The message names the values that differ, and ends with `remedy`, what to do about it.
    """
    differing = list(_differences(requested, stored))
    if differing:
        named = "; ".join(f"{name} {old!r}, not {new!r}" for name, new, old in differing[:_MAX_NAMED])
        more = f" and {len(differing) - _MAX_NAMED} more" if len(differing) > _MAX_NAMED else ""
        raise UsageError(f"{folder!r} belongs to a run with {named}{more}; {remedy}")


def _differences(
    requested: Mapping[str, Any], stored: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names in `requested` whose values, as JSON, differ in `stored`, with both values."""
    for name, value in requested.items():
        other = stored.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(value, other, f"{prefix}{name}.")
        elif json.loads(json.dumps(value)) != other:
            yield f"{prefix}{name}", value, other
