"""Configuration files of commands: TOML, or the JSON that a run stored, as words of a command line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.storage.errors import UsageError

FLAG = "--config"


def read(path: str) -> dict[str, Any]:
    """Read a .toml or .json file. Raises `UsageError` for one that is missing or damaged."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{FLAG} {path!r} cannot be read: {error.strerror}; give a .toml or .json file") from None
    try:
        values = json.loads(content) if path.endswith(".json") else tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{FLAG} {path!r} is not valid: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{FLAG} {path!r} is not a table of flags")
    return values


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the file of `--config FILE` in a command line, None without one, and the other words.

    Raises `UsageError` if the flag is given twice or without a file.
    """
    path, rest, waiting = None, [], iter(words)
    for word in waiting:
        flag, separator, value = word.partition("=")
        if flag != FLAG:
            rest.append(word)
            continue
        if path is not None:
            raise UsageError(f"{FLAG} is given twice; give one file")
        path = value if separator else next(waiting, None)
        if not path:
            raise UsageError(f"{FLAG} needs a file")
    return path, rest


def arguments(values: Mapping[str, Any], given: Sequence[str], ignored: Collection[str] = ()) -> list[str]:
    """Return the words that set `values`, without those that the words `given` set too.

    A nested table is a prefix: `{"optimizer": {"eps": 1e-8}}` is `--optimizer.eps 1e-08`. Booleans are `--flag` and
    `--no-flag`, lists several words, JSON's null is `None`.
    """
    overridden = {_normalized(word.partition("=")[0]) for word in given if word.startswith("--")}
    words: list[str] = []
    for name, value in _flat({name: value for name, value in values.items() if name not in ignored}):
        positive, negative = f"--{name}", "--" + ".".join([*name.split(".")[:-1], f"no-{name.split('.')[-1]}"])
        if {_normalized(positive), _normalized(negative)} & overridden:
            continue
        if isinstance(value, bool):
            words.append(positive if value else negative)
        else:
            words += [positive, *_texts(value)]
    return words


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [str(value)]


def _normalized(flag: str) -> str:
    return flag.replace("_", "-")
