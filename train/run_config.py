"""The stored configuration of a run: read in one place, compared by the names of what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from model.checkpoint_location import CONFIG_NAME
from shards import filesystem
from shards.errors import UsageError, UserError


class RunConfigError(UserError):
    """The stored configuration of a run is damaged; the message says where and how."""


def read_config(workdir: str) -> dict[str, Any]:
    """Read the stored configuration of the run in a work folder. Raises `RunConfigError` if it is damaged."""
    path = filesystem.join(workdir, CONFIG_NAME)
    try:
        stored = json.loads(filesystem.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(stored, dict):
        raise _damaged(path, f"it holds {type(stored).__name__} instead of an object")
    return stored


def _damaged(path: str, reason: str) -> RunConfigError:
    return RunConfigError(
        f"{path!r} is damaged: {reason}; restore it, or remove it and give the command of the run again"
    )


def parsed(workdir: str, parse: Any, stored: Mapping[str, Any]) -> Any:
    """Return `parse(stored)`. Raises `RunConfigError` for values that no configuration has."""
    try:
        return parse(stored)
    except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
        path = filesystem.join(workdir, CONFIG_NAME)
        raise _damaged(path, f"{type(error).__name__} {error}") from None


def write_config(workdir: str, values: Mapping[str, Any]) -> None:
    """Store the configuration of a run."""
    path = filesystem.join(workdir, CONFIG_NAME)
    filesystem.write_bytes(path, (json.dumps(values, indent=1) + "\n").encode())


def as_json(value: Any) -> Any:
    """Return a value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def check_same(workdir: str, ours: Mapping[str, Any], stored: Mapping[str, Any], way_out: str) -> None:
    """Raise `UsageError` naming every value of `ours` that the stored configuration has otherwise.

    `way_out` says what to do about it.
    """
    found = list(differences(as_json(ours), stored))
    if found:
        named = "; ".join(f"{name} {theirs!r}, not {mine!r}" for name, mine, theirs in found[:_MOST_NAMED])
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise UsageError(f"{workdir!r} belongs to a run with {named}{more}; {way_out}")


_MOST_NAMED = 5


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the names in `ours` whose values differ in `theirs`, with both values."""
    for name, mine in ours.items():
        other = theirs.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from differences(mine, other, f"{prefix}{name}.")
        elif mine != other:
            yield f"{prefix}{name}", mine, other
