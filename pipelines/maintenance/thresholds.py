"""Thresholds of the filters as `--set` takes them."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable
from typing import Any

from ingest.config import FilterConfig
from shards.storage.errors import UsageError


def changed(filters: FilterConfig, changes: Iterable[str]) -> FilterConfig:
    """The thresholds with some changed, each as NAME=VALUE. Raises `UsageError`."""
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
            raise UsageError(f"--set {change!r} must give a number or None")
    return dataclasses.replace(filters, **values)
