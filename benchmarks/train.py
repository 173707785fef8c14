"""What the training loop costs beside its step, and the memory a device needs on meshes of many sizes.

    python -m benchmarks.train [--data DATA] [--steps 200] [--rounds 3]
    python -m benchmarks.train --only memory [--rows base:8:8,1,1 large:32:4,8,1:2]

The first table trains the tiny model on real shards, by default small ones that are written for it: the bare step on
one batch over and over, the loop with figures and checkpoints on batches that are in memory, the same with the reader,
and the reader alone, in turns. The second table
compiles the train step of every row for a mesh of simulated devices, each row in a process of its own, and runs
nothing: what XLA's CPU compiler allots to one device. It computes bfloat16 products in float32 and has no fused
attention, so an accelerator needs less beside the arguments.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from model.config import Remat
from model.objectives import batch_shapes
from shards import dataset
from shards.reader import PretrainingReader
from shards.vocabulary import of_data
from train.checkpoint import Checkpoints
from train.config import PRESETS, TINY, MeshConfig, fit_to_data
from train.journal import Journal
from train.loop import Rhythm, run
from train.mesh import by_example, make_mesh, to_devices
from train.step import TrainState, initial_state, make_step, state_shapes

ROWS = (
    *("base:1:1,1,1", "base:8:8,1,1", "base:8:1,8,1", "base:8:2,2,2"),
    *("base:32:32,1,1", "base:32:1,32,1", "base:32:4,8,1", "base:32:4,4,2"),
    *("large:8:8,1,1", "large:8:1,8,1", "large:8:2,2,2"),
    *("large:32:32,1,1", "large:32:1,32,1", "large:32:4,8,1", "large:32:4,4,2"),
)
"""Model, devices, the axes data, fsdp and tensor, and, if more than one, microbatches."""

_WARM = 10
_MIB = 2**20


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
        rhythm = Rhythm(_WARM + self.steps, self.config.batch_size, _WARM, max(self.steps // 4, 5 * _WARM), 50)
        lines: list[dict[str, float]] = []
        with tempfile.TemporaryDirectory() as workdir:
            checkpoints = Timed(str(Path(workdir) / "checkpoints"), self.config.keep)
            journal = Journal(workdir, 0, rhythm.steps, Console(quiet=True))
            used: list[float] = []

            def report(line: dict[str, float]) -> None:
                journal(line)
                lines.append(line)
                used.append(time.process_time())

            run(self._step, rhythm, self.mesh, self._fresh(), reader, checkpoints, workdir, report=report)
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


def memory_of(row: str, examples: int, remat: str) -> dict[str, float]:
    """MiB of one device for a train step of a row with `examples` a device, and the seconds to compile it."""
    name, _, axes, *turns = row.split(":")
    data, fsdp, tensor = map(int, axes.split(","))
    preset = PRESETS[name]
    policy = Remat(remat, remat, remat, remat)
    config = dataclasses.replace(
        preset,
        model=dataclasses.replace(preset.model, scan_layers=True, remat=policy),
        mesh=MeshConfig(data, fsdp, tensor),
        batch_size=examples * data * fsdp,
        microbatches=int(turns[0]) if turns else 1,
    )
    mesh = make_mesh(config.mesh)
    batch = {
        array: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=by_example(mesh))
        for array, shape in batch_shapes(config.model, config.batch_size).items()
    }
    begun = time.perf_counter()
    found = make_step(config, mesh).lower(state_shapes(config), batch).compile().memory_analysis()
    return {
        "arguments": found.argument_size_in_bytes / _MIB,
        "beside": found.temp_size_in_bytes / _MIB,
        "seconds": time.perf_counter() - begun,
    }


def memory_table(console: Console, rows: list[str], examples: int, remat: str) -> None:
    """One line a row, each compiled in a process with as many simulated devices."""
    table = Table(title=f"MiB a device, {examples} examples a device on data x fsdp, scanned layers, remat {remat}")
    for column in ("model", "devices", "data, fsdp, tensor", "microbatches", "state and batch", "beside", "compile s"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        name, devices, axes, *turns = row.split(":")
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        command = [sys.executable, "-m", "benchmarks.train", "--one", row, "--examples", str(examples)]
        done = subprocess.run(
            [*command, "--remat", remat], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{row}: {done.stderr.strip().splitlines()[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        figures = (f"{found['arguments']:,.0f}", f"{found['beside']:,.0f}", f"{found['seconds']:.0f}")
        table.add_row(name, devices, axes, turns[0] if turns else "1", *figures)
    console.print(table)


def _written(folder: str) -> str:
    """Small real shards, as the tests write them."""
    from tests.shards.reader_data import write_data

    return write_data(Path(folder) / "data", [32, 32])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a data folder of shards")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="of the first table")
    parser.add_argument("--only", choices=("loop", "memory"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="MODEL:DEVICES:DATA,FSDP,TENSOR[:MICROBATCHES]")
    parser.add_argument("--examples", type=int, default=2, help="of a device, for the memory")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="full")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(memory_of(given.one, given.examples, given.remat)))
        return
    console = Console(width=120)
    if given.only != "memory":
        with tempfile.TemporaryDirectory() as folder:
            loop_table(console, given.data or _written(folder), given.steps, given.rounds)
    if given.only != "loop":
        memory_table(console, given.rows, given.examples, given.remat)


if __name__ == "__main__":
    main()
