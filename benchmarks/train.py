"""What the training loop costs beside its step, and the memory a device needs on meshes of many sizes.

    python -m benchmarks.train [--data DATA] [--steps 200]
    python -m benchmarks.train --only memory [--rows base:8:8,1,1 large:32:4,8,1:2]

The first table trains the tiny model on real shards, by default small ones that are written for it: the bare step on
one batch over and over, then the loop with reader, figures and checkpoints, one after the other. The second table
compiles the train step of every row for a mesh of simulated devices, each row in a process of its own, and runs
nothing: what XLA's CPU compiler allots to one device. It computes bfloat16 products in float32 and has no fused
attention, so an accelerator needs less beside the arguments.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from model.config import Remat
from model.objectives import batch_shapes
from shards import dataset
from shards.reader import PretrainingReader
from shards.vocabulary import of_data
from train.checkpoint import Checkpoints
from train.config import PRESETS, TINY, MeshConfig, TrainConfig, fit_to_data
from train.loop import train
from train.mesh import by_example, make_mesh, to_devices
from train.step import initial_state, make_step, state_shapes

ROWS = (
    *("base:1:1,1,1", "base:8:8,1,1", "base:8:1,8,1", "base:8:2,2,2", "base:32:32,1,1", "base:32:4,8,1"),
    *("large:8:8,1,1", "large:8:1,8,1", "large:8:2,2,2", "large:32:4,8,1", "large:32:1,32,1"),
)
"""Model, devices, the axes data, fsdp and tensor, and, if more than one, microbatches."""

_WARM = 10
_MIB = 2**20


def bare(config: TrainConfig, data: str, steps: int) -> float:
    """Seconds a step on one batch that is already on the device."""
    mesh = make_mesh(config.mesh)
    reader = PretrainingReader(data, config.reader(), config.batch_size, config.seed)
    batch = to_devices(mesh, next(reader))
    reader.close()
    step, state = make_step(config, mesh), initial_state(config, mesh)
    for count in range(_WARM + steps):
        if count == _WARM:
            jax.block_until_ready(state)
            begun = time.perf_counter()
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    return (time.perf_counter() - begun) / steps


def looped(config: TrainConfig, data: str, steps: int, workdir: str) -> dict[str, float]:
    """The loop's figures over `steps` steps, the mean wait for a batch, and how long saving holds the loop."""
    config = dataclasses.replace(config, steps=_WARM + steps, log_every=_WARM, checkpoint_every=max(steps // 4, 1))
    mesh = make_mesh(config.mesh)
    reader = PretrainingReader(data, config.reader(), config.batch_size, config.seed)
    checkpoints = _Timed(str(Path(workdir) / "checkpoints"), config.keep)
    lines: list[dict[str, float]] = []
    train(config, mesh, initial_state(config, mesh), reader, checkpoints, workdir, report=lines.append)
    reader.close()
    checkpoints.close()
    # The first line compiles. The median leaves out moments when another process had the machine.
    later = lines[1:]
    return {
        "seconds": float(np.median([line["seconds_per_step"] for line in later])),
        "wait": float(np.mean([line["wait_share"] for line in later])),
        "stall": float(np.median(checkpoints.stalls)),
    }


class _Timed(Checkpoints):
    """Checkpoints that remember how long each call to save took."""

    def __init__(self, folder: str, keep: int):
        super().__init__(folder, keep)
        self.stalls: list[float] = []

    def save(self, state, reader) -> None:
        """Save, and note the seconds until the loop may go on."""
        jax.block_until_ready(state)
        begun = time.perf_counter()
        super().save(state, reader)
        self.stalls.append(time.perf_counter() - begun)


def loop_table(console: Console, data: str, steps: int) -> None:
    """The loop beside the bare step."""
    config = fit_to_data(TINY, *_shape(data))
    table = Table(title=f"tiny, batches of {config.batch_size}, {steps} steps on {jax.devices()[0].device_kind}")
    for column in ("", "ms a step", "examples/s", "over the bare step", "waiting for input", "a checkpoint holds, ms"):
        table.add_column(column, justify="left" if not column else "right")
    step_s = bare(config, data, steps)
    with tempfile.TemporaryDirectory() as workdir:
        found = looped(config, data, steps, workdir)
    size = config.batch_size
    table.add_row("bare step", f"{step_s * 1e3:.1f}", f"{size / step_s:.1f}", "-", "-", "-")
    table.add_row(
        "loop",
        f"{found['seconds'] * 1e3:.1f}",
        f"{size / found['seconds']:.1f}",
        f"{found['seconds'] / step_s - 1:+.1%}",
        f"{found['wait']:.1%}",
        f"{found['stall'] * 1e3:.1f}",
    )
    console.print(table)


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
            loop_table(console, given.data or _written(folder), given.steps)
    if given.only != "loop":
        memory_table(console, given.rows, given.examples, given.remat)


if __name__ == "__main__":
    main()
