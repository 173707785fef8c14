"""The tables at the end of a test run: what became of each fault, and how close we come to each golden file.

Rows are gathered where the tests run and sent to the process that prints them, so that they are the same however many
processes share the tests.
"""

from __future__ import annotations

import pytest

FAULTS: dict[str, tuple[str, str]] = {}
"""Fault -> outcome and detail."""
ERRORS: dict[tuple[str, str], tuple[float, str]] = {}
"""Golden file and quantity -> the worst error and its unit."""
ARRAYS: dict[str, tuple[float, str, int]] = {}
"""Golden file of the model -> the worst relative error, the array that has it, and how many arrays were compared."""


def note_error(file: str, quantity: str, error: float, unit: str) -> None:
    """Keep the larger of this error and those noted before."""
    held = ERRORS.get((file, quantity), (-1.0, unit))[0]
    ERRORS[file, quantity] = (max(held, float(error)), unit)


def note_array(file: str, error: float, array: str, count: int = 1) -> None:
    """Keep the worse of this array and those noted before, and count them."""
    worst, worst_array, before = ARRAYS.get(file, (-1.0, "", 0))
    ARRAYS[file] = (*((error, array) if error > worst else (worst, worst_array)), before + count)


def rows() -> dict[str, list]:
    """All that was noted, in a form that can be sent to another process."""
    return {
        "faults": [[fault, *row] for fault, row in FAULTS.items()],
        "errors": [[*key, *row] for key, row in ERRORS.items()],
        "arrays": [[file, error, array, count] for file, (error, array, count) in ARRAYS.items()],
    }


def add(given: dict[str, list]) -> None:
    """Join the rows of another process to ours."""
    for fault, outcome, detail in given["faults"]:
        FAULTS[fault] = (outcome, detail)
    for row in given["errors"]:
        note_error(*row)
    for row in given["arrays"]:
        note_array(*row)


def write(reporter: pytest.TerminalReporter) -> None:
    """Print the tables that have rows."""
    if FAULTS:
        reporter.section("what became of each fault")
    for fault, (outcome, detail) in FAULTS.items():
        reporter.write_line(f"{fault:<52} {outcome:<28} {detail}")
    if ERRORS:
        reporter.section("worst error against each golden file")
    for (file, quantity), (error, unit) in sorted(ERRORS.items()):
        reporter.write_line(f"{file:<32} {quantity:<44} {error:10.3g} {unit}")
    if ARRAYS:
        reporter.section("parity: worst error of each golden file, relative to the array's largest value")
    for file, (error, array, count) in sorted(ARRAYS.items()):
        reporter.write_line(f"{file:36} {error:9.1e}   {count:4} arrays   worst: {array}")
