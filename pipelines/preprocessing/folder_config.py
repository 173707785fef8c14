"""Read the config.json of a data folder as untrusted data, which cannot name code to import or files to open."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ingest.config import NO_EMBEDDER, PERCEPTUAL, FilterConfig, VideoConfig
from shards.storage import filesystem, stored_config
from shards.storage.errors import UsageError, UserError
from shards.storage.stored_config import CONFIG_NAME

MAX_SEGMENTS_PER_EXAMPLE = 100


@dataclass(frozen=True)
class FolderConfig:
    """The config of a data folder: all `values` as stored, and the parsed values that other jobs need."""

    values: dict[str, Any]
    filters: FilterConfig
    language: str
    seed: int
    embedder: str
    segments_per_example: int
    groups: dict[str, float | None]
    group_probability: float


def read(data: str) -> FolderConfig:
    """Return the config of a data folder.

    Raises `UsageError` without one, and `UserError` for one that is damaged or of an earlier version.
    """
    path = filesystem.join(data, CONFIG_NAME)
    values = stored_config.read(data)
    if values is None:
        raise UsageError(f"{data!r} has no {CONFIG_NAME}; give the folder that preprocess created")
    video = values.get("video")
    if not isinstance(video, dict):
        raise UserError(f"{path!r} is damaged: 'video' is {video!r}, not an object; restore it")
    if {"filters", "language", "seed", "embedder"}.difference(video) or "groups" not in values:
        raise UserError(f"{path!r} is of an earlier version, whose ledger lacks scores; run preprocess again")
    try:
        groups = {name: _number(values["groups"], name) for name in ("max_similarity", "min_objects")}
        probability = _number(values["groups"], "probability")
        if probability is None or not 0 <= probability <= 1:
            raise ValueError(f"'probability' is {probability}, not from 0 to 1")
        config = FolderConfig(
            values,
            _filters(video["filters"]),
            _value(video, "language", str),
            _value(video, "seed", int),
            _value(video, "embedder", str),
            _value(values, "segments_per_example", int),
            groups,
            probability,
        )
        if not 1 <= config.segments_per_example <= MAX_SEGMENTS_PER_EXAMPLE:
            raise ValueError(f"'segments_per_example' is {config.segments_per_example}")
        return config
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path!r} is damaged: {' '.join(str(error).split())[:160]}; restore it") from None


def embedder(stored: str, requested: str | None) -> str:
    """Return the image embedder to load for a folder whose config names `stored`; the command line names `requested`.

    A folder is untrusted data, so a stored name alone loads no file, address or module. Raises `UsageError` for such an
    embedder unless the command line names it as well; files are compared by their digest.
    """
    if requested is not None:
        if stored not in (requested, VideoConfig(embedder=requested).embedder_digest):
            raise UsageError(f"--embedder {requested!r} is not the one that the folder was created with, {stored!r}")
        return requested
    if stored not in (PERCEPTUAL, NO_EMBEDDER):
        raise UsageError(
            f"the folder was created with the embedder {stored!r}, which is not loaded because a data folder names it; "
            "give it with --embedder if you trust it"
        )
    return stored


def _filters(stored: object) -> FilterConfig:
    if not isinstance(stored, dict):
        raise TypeError(f"'filters' is {stored!r}, not an object")
    names = {field.name for field in dataclasses.fields(FilterConfig)}
    if unknown := stored.keys() - names:
        raise ValueError(f"'filters' has the unknown rule {min(unknown)!r}")
    categories = stored.get("excluded_categories", [])
    if not isinstance(categories, list) or not all(isinstance(category, str) for category in categories):
        raise TypeError("'excluded_categories' is not a list of strings")
    thresholds: dict[str, Any] = {
        name: _number(stored, name) for name in names & stored.keys() - {"excluded_categories"}
    }
    return FilterConfig(**thresholds, excluded_categories=tuple(categories))


def _number(stored: object, name: str) -> float | None:
    """Return the value of a name in a JSON object, which must be a finite number or null."""
    if not isinstance(stored, dict):
        raise TypeError(f"{stored!r} is not an object")
    value = stored[name]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value)):
        raise ValueError(f"{name!r} is not a number: {value!r}")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _value(stored: dict[str, Any], name: str, kind: type) -> Any:
    value = stored[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name!r} is {value!r}")
    return value
