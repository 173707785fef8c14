"""What the training loop costs beside its step.

    python -m benchmarks.train [--data DATA] [--steps 200] [--rounds 3]

The tiny model is trained on real shards, by default small ones that are written for it: the bare step on one batch over
and over, the loop with metrics and checkpoints on batches that are in memory, the same with the reader, and the reader
alone, in turns. What a step takes on accelerators is compiled by `python -m train.compile`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from shards.dataset import location as dataset
from shards.reader import PretrainingReader
from shards.reading.vocabulary import of_data
from train.checkpoint import Checkpoints
from train.config import fit_to_data
from train.configs.tiny import CONFIG as TINY
from train.loop import Hooks, LoopConfig, run
from train.mesh import make_mesh, to_devices
from train.metrics.metric_writer import MetricWriter
from train.state import TrainState
from train.step import initial_state, make_step

_WARM = 10


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one way of stepping costs: wall and CPU seconds a step, share of waiting, and seconds a checkpoint holds."""

    seconds: float
    cpu: float
    wait: float | None = None
    stall: float | None = None


class Bench:
    """The tiny model's compiled step and the ways to call it."""

    def __init__(self, data: str, steps: int):
        self.config = fit_to_data(TINY, *_shape(data))
        self.data, self.steps, self.mesh = data, steps, make_mesh(self.config.mesh)
        self._step, self._state = make_step(self.config, self.mesh), initial_state(self.config, self.mesh)

    def reader(self) -> PretrainingReader:
        """A reader of the shards, from their beginning."""
        return PretrainingReader(self.data, self.config.reader(), self.config.batch_size, self.config.seed)

    def batches(self) -> Held:
        """A few batches that are made already."""
        reader = self.reader()
        held = Held([next(reader) for _ in range(4)])
        reader.close()
        return held

    def bare(self) -> Cost:
        """The step on one batch that is already on the device."""
        batch, state = to_devices(self.mesh, next(self.batches())), self._fresh()
        for count in range(_WARM + self.steps):
            if count == _WARM:
                jax.block_until_ready(state)
                begun, cpu = time.perf_counter(), time.process_time()
            state, _ = self._step(state, batch)
        jax.block_until_ready(state)
        return Cost((time.perf_counter() - begun) / self.steps, (time.process_time() - cpu) / self.steps)

    def looped(self, reader: PretrainingReader | Held) -> Cost:
        """The loop with its figures and some checkpoints; medians leave out moments when others had the machine."""
        config = LoopConfig(_WARM + self.steps, self.config.batch_size, _WARM, max(self.steps // 4, 5 * _WARM), 50)
        lines: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as workdir:
            checkpoints = Timed(str(Path(workdir) / "checkpoints"), self.config.keep)
            writer = MetricWriter(workdir, 0, config.steps, Console(quiet=True))
            used: list[float] = []

            def report(line: dict[str, float]) -> None:
                writer(line)
                lines.append(line)
                used.append(time.process_time())

            run(self._step, config, self.mesh, self._fresh(), reader, checkpoints, workdir, Hooks(write=report))
            checkpoints.close()
        reader.close()
        # The first line fills the queues.
        return Cost(
            float(np.median([line["seconds_per_step"] for line in lines[1:]])),
            float(np.median(np.diff(used))) / _WARM,
            float(np.median([line["wait_share"] for line in lines[1:]])),
            float(np.median(checkpoints.stalls)),
        )

    def read(self) -> Cost:
        """The reader alone, as fast as it can."""
        reader = self.reader()
        for count in range(_WARM + self.steps // 2):
            if count == _WARM:
                begun, cpu = time.perf_counter(), time.process_time()
            next(reader)
        cost = Cost((time.perf_counter() - begun) / (self.steps // 2), (time.process_time() - cpu) / (self.steps // 2))
        reader.close()
        return cost

    def _fresh(self) -> TrainState:
        return jax.tree.map(jnp.copy, self._state)


class Held:
    """Batches in memory, over and over, in the place of a reader."""

    def __init__(self, batches: list[dict[str, np.ndarray]]):
        self._batches, self._position = itertools.cycle(batches), 0

    def __next__(self) -> dict[str, np.ndarray]:
        self._position += 1
        return next(self._batches)

    def state(self) -> dict[str, int]:
        """How many batches were taken."""
        return {"position": self._position}

    def close(self) -> None:
        """Nothing is held open."""


class Timed(Checkpoints):
    """Checkpoints that remember how long each call to save took."""

    def __init__(self, folder: str, keep: int):
        super().__init__(folder, keep)
        self.stalls: list[float] = []

    def save(self, state: TrainState, reader: dict) -> None:
        """Save, and note the seconds until the loop may go on."""
        jax.block_until_ready(state)
        begun = time.perf_counter()
        super().save(state, reader)
        self.stalls.append(time.perf_counter() - begun)


def loop_table(console: Console, data: str, steps: int, rounds: int) -> None:
    """The loop beside the bare step and the reader alone, in turns; medians of the rounds."""
    bench = Bench(data, steps)
    ways = {
        "bare step": bench.bare,
        "loop, batches in memory": lambda: bench.looped(bench.batches()),
        "loop, reading shards": lambda: bench.looped(bench.reader()),
        "reader alone, a batch": bench.read,
    }
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    size, device = bench.config.batch_size, jax.devices()[0].device_kind
    table = Table(title=f"tiny, batches of {size}, {steps} steps on {device}, medians of {rounds} rounds")
    for column in ("", "ms", "CPU ms", "over the bare step", "its CPU", "waiting for input", "a checkpoint holds, ms"):
        table.add_column(column, justify="left" if not column else "right")
    middle = {name: _median(costs) for name, costs in found.items()}
    least = middle["bare step"]
    for name, cost in middle.items():
        loops = cost.stall is not None
        table.add_row(
            name,
            f"{cost.seconds * 1e3:.1f}",
            f"{cost.cpu * 1e3:.1f}",
            f"{cost.seconds / least.seconds - 1:+.1%}" if loops else "-",
            f"{cost.cpu / least.cpu - 1:+.1%}" if loops else "-",
            f"{cost.wait:.1%}" if loops else "-",
            f"{cost.stall * 1e3:.1f}" if loops else "-",
        )
    console.print(table)


def _median(costs: list[Cost]) -> Cost:
    """Field by field."""
    fields = zip(*map(dataclasses.astuple, costs), strict=True)
    return Cost(*(None if None in values else float(np.median(values)) for values in fields))


def _shape(data: str) -> tuple[int, int]:
    """Tokens of the vocabulary and segments of an example."""
    opened = dataset.open_data(data, TINY.input.split)
    return of_data(opened.folder, opened.manifest).size, opened.manifest.segments_per_example


def _written(folder: str) -> str:
    """Small real shards, as the tests write them."""
    from tests.reader_data import write_data

    return write_data(Path(folder) / "data", [32, 32])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a data folder of shards")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loop_table(Console(width=120), given.data or _written(folder), given.steps, given.rounds)


if __name__ == "__main__":
    main()
