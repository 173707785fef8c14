"""Tables for a terminal whose cells are printed as they are, whatever ids and details of videos spell."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


class PlainTable(Table):
    """A table that takes texts as texts: without markup, emoji codes and control characters."""

    def __init__(self, *headers: str, title: str | None = None, **settings: object):
        super().__init__(*headers, title=None if title is None else _plain(title), **settings)

    def add_row(self, *cells: RenderableType | None, **settings: object) -> None:
        """Add a row; texts among its cells are printed as they are."""
        super().add_row(*(_plain(cell) if isinstance(cell, str) else cell for cell in cells), **settings)


def _plain(text: str) -> Text:
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))
