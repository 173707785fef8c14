"""The curves of a run as one picture: losses, and accuracies on held-out videos as multiples of chance.

Drawn with Pillow alone from the metrics that training wrote: `python -m pipelines.demo.curves RUN --out curves.png`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from shards import filesystem
from shards.errors import UsageError, run_command
from train.accuracy import OBJECTIVES
from train.metrics import NAME, MetricsLog

PANEL = (560, 360)
"""Width and height of a panel in pixels."""
_MARGIN = (64, 40, 24, 52)  # left, top, right, bottom
_COLOURS = ((31, 95, 180), (214, 96, 30), (40, 140, 70))
_GREY, _INK = (215, 215, 215), (40, 40, 40)
_FONT_SIZE = 14
_TICKS = 5
_SMOOTHED = 5
"""Lines of training metrics that one point of a training curve averages."""


@dataclass(frozen=True)
class Curve:
    """Points `[n, 2]` of step and value, with the name and colour they are drawn in."""

    name: str
    points: np.ndarray
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Options:
    """Draw the curves of a run."""

    run: tyro.conf.Positional[str]
    """The work folder of train.pretrain."""
    out: str = "curves.png"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = tyro.cli(Options, args=argv, prog="python -m pipelines.demo.curves")
    lines = MetricsLog(filesystem.join(options.run, NAME)).lines()
    if not any("loss" in line for line in lines):
        raise UsageError(f"{options.run!r} holds no {NAME} with losses; give the work folder of a run")
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    draw(lines).save(options.out, optimize=True)
    return 0


def draw(lines: Sequence[dict[str, float]]) -> Image.Image:
    """Three panels side by side from the lines of a metrics file."""
    panels = [("loss in training", [_curve(lines, name, name, i, _SMOOTHED) for i, name in enumerate(OBJECTIVES)], 0)]
    for title, prefix in (
        ("held-out videos, in the batch: accuracy / chance", "accuracy"),
        ("held-out videos, within the video: accuracy / chance", "accuracy_within_video"),
    ):
        curves = [_curve(lines, name, f"val/{prefix}/{name}", i, 1) for i, name in enumerate(OBJECTIVES)]
        panels.append((title, curves, 1))
    width, height = PANEL
    image = Image.new("RGB", (width * len(panels), height), "white")
    for number, (title, curves, level) in enumerate(panels):
        image.paste(_panel(title, curves, level), (number * width, 0))
    return image


def _curve(lines: Sequence[dict[str, float]], name: str, key: str, number: int, window: int) -> Curve:
    """The values under `key`, divided by their chance where there is one, each the mean of `window` lines."""
    chance = key.replace("accuracy", "chance")
    points = [
        (line["step"], line[key] / line[chance] if chance != key else line[key])
        for line in lines
        if line.get(key) is not None
    ]
    array = np.array(points, float).reshape(-1, 2)
    whole = array[: len(array) // window * window].reshape(-1, window, 2)
    return Curve(name, whole.mean(axis=1) if len(whole) else array, _COLOURS[number])


def _panel(title: str, curves: Sequence[Curve], level: float) -> Image.Image:
    """One diagram with a line at `level`, which the values are measured from."""
    width, height = PANEL
    left, top, right, bottom = _MARGIN
    image = Image.new("RGB", PANEL, "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE)
    everything = np.concatenate([curve.points for curve in curves])
    last = everything[:, 0].max(initial=1)
    highest = everything[:, 1].max(initial=level + 1) * 1.05

    def place(step: float, value: float) -> tuple[float, float]:
        x = left + step / last * (width - left - right)
        return x, height - bottom - value / highest * (height - top - bottom)

    for part in np.linspace(0, 1, _TICKS):
        _, y = place(0, part * highest)
        canvas.line([(left, y), (width - right, y)], _GREY)
        canvas.text((left - 8, y), f"{part * highest:.1f}", _INK, font, anchor="rm")
        x, y = place(part * last, 0)
        canvas.text((x, y + 8), f"{part * last:.0f}", _INK, font, anchor="mt")
    canvas.line([place(0, level), place(last, level)], _INK)
    for number, curve in enumerate(curves):
        path = [place(*point) for point in curve.points]
        if len(path) > 1:
            canvas.line(path, curve.colour, width=2, joint="curve")
        for x, y in path if len(path) <= 40 else ():
            canvas.ellipse([x - 3, y - 3, x + 3, y + 3], curve.colour)
        canvas.text((left + number * 160, height - 6), curve.name, curve.colour, font, anchor="ls")
    canvas.text((left, 12), title, _INK, font, anchor="lt")
    return image


if __name__ == "__main__":
    sys.exit(run_command(main))
