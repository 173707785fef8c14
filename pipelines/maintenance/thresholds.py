"""Parse the filter thresholds of `--set`."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable
from typing import Any

from ingest.config import FilterConfig
from shards.storage.errors import UsageError


def changed(filters: FilterConfig, changes: Iterable[str]) -> FilterConfig:
    """Return the thresholds with changes of the form NAME=VALUE. Raises `UsageError` for an invalid change."""
    values: dict[str, Any] = {}
    names = [f.name for f in dataclasses.fields(filters)]
    for change in changes:
        name, equals, written = change.partition("=")
        if name not in names or not equals:
            raise UsageError(f"--set {change!r} must be NAME=VALUE with one of the names {', '.join(names)}")
        if name == "excluded_categories":
            values[name] = tuple(part for part in written.split(",") if part)
            continue
        try:
            values[name] = ast.literal_eval(written)
        except (ValueError, SyntaxError):
            values[name] = written
        if not (values[name] is None or type(values[name]) in (int, float)):
            raise UsageError(f"--set {change!r} must have a number or None as its value")
    return dataclasses.replace(filters, **values)
