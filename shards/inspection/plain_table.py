"""Terminal tables whose cells are printed literally, whatever text comes from videos."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


class PlainTable(Table):
    """A table that prints strings literally: without markup, emoji codes and control characters."""

    def __init__(self, *headers: str, title: str | None = None, **settings: Any):
        super().__init__(*headers, title=None if title is None else _plain(title), **settings)

    def add_row(self, *cells: RenderableType | None, **settings: Any) -> None:
        """Add a row; strings among its cells are printed literally."""
        super().add_row(*(_plain(cell) if isinstance(cell, str) else cell for cell in cells), **settings)


def _plain(text: str) -> Text:
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))
