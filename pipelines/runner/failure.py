"""Extract the most relevant line from a runner's description of a failure."""

from __future__ import annotations

_LONGEST = 500


def failure_line(text: str) -> str:
    """Return the message of the last exception in a text, which may be a traceback, or else the text's last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no reason was given"
    line = next((line for line in reversed(lines) if "Error: " in line), lines[-1])
    return line.split("Error: ", 1)[-1][:_LONGEST]
