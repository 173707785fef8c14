"""Draw the curves of a training run: losses, and accuracies on held-out videos as multiples of chance.

python -m pipelines.demo.curves RUN --out curves.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from shards import command_line
from shards.command_line import run_command
from shards.storage import filesystem
from shards.storage.errors import UsageError
from train.metrics.formatting import NAME, MetricsLog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMOOTHING = 5
"""The number of lines of training metrics that are averaged for one point of a curve."""


@dataclass(frozen=True)
class Options:
    """Draw the curves of a training run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The work folder of train.pretrain."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "curves.png"
    """The PNG file to write."""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = command_line.parse(tyro.cli, Options, "pipelines.demo.curves", argv)
    command_line.require_folder("RUN", options.run)
    lines = MetricsLog(filesystem.join(options.run, NAME)).lines()
    if not any("loss" in line for line in lines):
        raise UsageError(f"{options.run!r} has no {NAME} with losses; give the work folder of a run")
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    draw(lines).savefig(options.out, dpi=100)
    return 0


def draw(lines: Sequence[dict[str, float]]) -> Figure:
    """Return a figure of three diagrams of the lines of a metrics file."""
    from matplotlib.figure import Figure

    from train.metrics.accuracy import OBJECTIVES

    figure = Figure(figsize=(15, 4), layout="constrained")
    losses, *accuracies = figure.subplots(1, 3)
    losses.set_title("loss in training")
    for name in OBJECTIVES:
        losses.plot(*points(lines, name, _SMOOTHING).T, label=name)
    for axes, scope, place in zip(
        accuracies, ("accuracy", "accuracy_within_video"), ("in the batch", "within the video"), strict=True
    ):
        axes.set_title(f"held-out videos, {place}: accuracy / chance")
        axes.axhline(1, color="black", linewidth=1)
        for name in OBJECTIVES:
            axes.plot(*points(lines, f"val/{scope}/{name}", 1).T, marker="o", label=name)
    for axes in (losses, *accuracies):
        axes.set(xlabel="step", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def points(lines: Sequence[dict[str, float]], key: str, window: int) -> np.ndarray:
    """Return steps and values of `key`, `[n, 2]`, as means of `window` lines; accuracies are divided by chance."""
    chance = key.replace("accuracy", "chance")
    values = [
        (line["step"], line[key] / line[chance] if chance != key else line[key])
        for line in lines
        if line.get(key) is not None
    ]
    array = np.array(values, float).reshape(-1, 2)
    whole = array[: len(array) // window * window].reshape(-1, window, 2)
    return whole.mean(axis=1) if len(whole) else array


if __name__ == "__main__":
    sys.exit(run_command(main))
