"""The one line that matters of what a runner says about a failure."""

from __future__ import annotations

_LONGEST = 500


def failure_line(text: str) -> str:
    """The sentence of the last exception in a text, which may be a traceback, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no reason was given"
    line = next((line for line in reversed(lines) if "Error: " in line), lines[-1])
    return line.split("Error: ", 1)[-1][:_LONGEST]
