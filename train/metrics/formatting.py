"""The figures of a run: one JSON line for the file, one short line for the terminal.

After a restart the lines beyond the restored step are dropped, so that the file is that of an uninterrupted run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from shards.storage import filesystem
from shards.storage.errors import UserError

NAME = "metrics.jsonl"
EVALUATIONS_NAME = "evaluations.jsonl"
"""The evaluations of a finetuning run, a line an epoch."""


class MetricsError(UserError):
    """A file of metrics is damaged; the message names the line."""


class MetricsLog:
    """The lines of a file, each a JSON object with a `step`."""

    def __init__(self, path: str):
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """Read all complete lines, oldest first.

        A line that a killed process did not finish is skipped. Raises `MetricsError` for other damage.
        """
        if not filesystem.exists(self.path):
            return []
        complete = filesystem.read_bytes(self.path).rpartition(b"\n")[0]
        lines = enumerate(complete.split(b"\n"), 1)
        return [self._parsed(number, line) for number, line in lines if line.endswith(b"}")]

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            parsed = json.loads(line)
            if isinstance(parsed["step"], int | float) and math.isfinite(parsed["step"]):
                return parsed
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise MetricsError(
            f"{self.path!r} is damaged: line {number} is {line[:40]!r} instead of a JSON object with a step; remove the"
            " line, or restore the file"
        )

    def append(self, metrics: Mapping[str, float]) -> None:
        """Add a line; numbers that are not finite become null, which is what JSON has for them."""
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        filesystem.append_line(self.path, json.dumps(finite).encode())

    def drop_after(self, step: int) -> None:
        """Remove the lines after a step."""
        kept = [line for line in self.lines() if line["step"] <= step]
        if filesystem.exists(self.path):
            filesystem.write_bytes(self.path, b"".join(json.dumps(line).encode() + b"\n" for line in kept))


def console_line(metrics: Mapping[str, float], steps: int) -> str:
    """Return a line of metrics, of training or evaluation, as one short line for the console."""
    if "val/loss" in metrics:
        accuracies = (
            f"{name.rpartition('/')[2]} {metrics[name]:.1%} (chance {metrics[name.replace('accuracy', 'chance')]:.1%})"
            for name in metrics
            if name.startswith("val/accuracy/")
        )
        return (
            f"step {metrics['step']:.0f}/{steps}  val loss {metrics['val/loss']:.4f}  accuracy {', '.join(accuracies)}"
        )
    seconds = (steps - metrics["step"]) * metrics["seconds_per_step"]
    line = (
        f"step {metrics['step']:.0f}/{steps}  loss {metrics['loss']:.4f}"
        f"  {metrics['examples_per_second']:.1f} examples/s  waiting {metrics['wait_share']:.1%}"
        f"  {_duration(seconds)} left"
    )
    return line + (f"  {metrics['skipped']:.0f} updates skipped" if metrics["skipped"] else "")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
