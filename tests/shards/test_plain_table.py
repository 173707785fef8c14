"""Ids and details are printed as they are spelt, whatever the terminal library reads into them."""

import io

import pytest
from rich.console import Console

from pipelines.preprocessing.status_report import Reason, Report, tables
from shards.inspection.plain_table import PlainTable


def printed(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("text", ["a[/b]", "[/]", "[bold]", "[link=x]y[/link]", ":smile:", "\\[x]", "[red]a[/red]"])
def test_cells_and_titles_are_no_markup(text):
    table = PlainTable("id", title=f"record of {text}")
    table.add_row(text)
    assert printed(table).count(text) == 2


def test_control_characters_do_not_reach_the_terminal():
    table = PlainTable("id")
    table.add_row("a\x1b[31mb\x07")
    assert "\x1b" not in printed(table)
    assert "a\ufffd[31mb\ufffd" in printed(table)


def test_the_status_of_an_id_with_markup():
    report = Report(1, 0, None, [Reason("no-words[/]", "rejected", 1, ["a[/b]", "[bold]c"])], 1, 0, None)
    out = printed(*tables(report))
    assert "a[/b], [bold]c" in out
    assert "no-words[/]" in out
