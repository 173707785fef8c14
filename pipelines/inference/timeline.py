"""Draw how the probabilities of the most likely options change over a video."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shards.storage import filesystem

MAX_LINES = 6


def draw(path: str, prompt: str, options: Sequence[str], times: np.ndarray, probabilities: np.ndarray) -> None:
    """Write a PNG of `probabilities [windows, options]` at the middles of the windows' `times [windows, 2]`."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    best = np.argsort(-probabilities.mean(axis=0), kind="stable")[:MAX_LINES]
    middles = times.mean(axis=1)
    for index in best:
        axes.plot(middles, probabilities[:, index], marker="o", markersize=4, label=options[index])
    axes.set(xlabel="middle of the window (s)", ylabel="probability", ylim=(0, 1.02))
    # A dollar sign would start a formula.
    axes.set_title(prompt.replace("$", r"\$"), loc="left")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    filesystem.write_bytes(path, buffer.getvalue())
