"""Compiling a training step for devices that are not there, and what its program would cost on them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from jax.errors import JaxRuntimeError
from jax.experimental import topologies
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from model.flops import pretraining_flops
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError
from shards.storage.fetch import programs_folder
from train.compilation.compiling import announce
from train.compilation.devices import chip
from train.compilation.gpu_targets import GPU_TARGETS
from train.compilation.matmul_flops import matmul_flops
from train.compilation.program_cost import Collective, analyse
from train.config import TrainConfig
from train.mesh import AXES, make_mesh
from train.step import batch_shapes, make_step, state_shapes

_CHIP_CONFIG = {"v4": "megacore"}
"""Generations whose chips are two devices unless the compiler is told what jobs get: one."""

_GPUS_OF_HOST = 8
_MISSING = (
    "the {compiler} compiler is not installed; install the extra `{extra}` (uv sync --inexact --extra {extra}, or pip"
    " install 'reservoir[{extra}]')"
)
_MIB, _GIB = 2**20, 2**30
_FORMAT = 3
"""Changes when a report means something else than before."""


@dataclass(frozen=True)
class Report:
    """What one step costs on one device of a topology; times are lower bounds that assume perfect overlap.

    Bytes are of main memory, `moved` by part of the network. `flops` are those of all matrix products, recomputed ones
    included; `model_flops` only what the arithmetic of the model needs, as utilisation is defined.
    """

    topology: str
    device: str
    devices: int
    mesh: dict[str, int]
    batch_size: int
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    memory_bytes: float
    flops: float
    model_flops: float
    moved: dict[str, float]
    collectives: tuple[Collective, ...]
    compute_seconds: float
    memory_seconds: float
    network_seconds: float
    lower_seconds: float
    compile_seconds: float

    @property
    def step_seconds(self) -> float:
        """The longest of arithmetic, memory and network."""
        return max(self.compute_seconds, self.memory_seconds, self.network_seconds)

    @property
    def limit(self) -> str:
        """What the step waits for."""
        times = {
            "arithmetic": self.compute_seconds,
            "memory bandwidth": self.memory_seconds,
            "network": self.network_seconds,
        }
        return max(times, key=lambda name: times[name])

    @property
    def utilisation(self) -> float:
        """The share of the peak that the model's arithmetic can reach at most."""
        known = chip(self.device)
        return self.model_flops / (self.step_seconds * known.flops) if known else 0.0


def topology_devices(name: str) -> Sequence[Any]:
    """Return the devices of a topology such as `v4:4x4x4` or `h100:8`; the process has `train.compile.ENVIRONMENT`.

    Raises `UsageError` for one that the compiler does not know, `UserError` where there is no compiler.
    """
    generation, _, chips = name.partition(":")
    if generation in GPU_TARGETS:
        return _gpus(name, GPU_TARGETS[generation], chips)
    settings = {"chip_config_name": _CHIP_CONFIG[generation]} if generation in _CHIP_CONFIG else {}
    try:
        return topologies.get_topology_desc(name, platform="tpu", **settings).devices
    except JaxRuntimeError as error:
        reason = str(error).splitlines()[0].partition(": ")[2]
        raise UsageError(
            f"--topology {name}: {reason}; name a generation and its chips, such as v4:4x4x4, v5e:8x8, v5p:2x2x4,"
            " v6e:16x16 or h100:8"
        ) from None
    except RuntimeError:
        raise UserError(_MISSING.format(compiler="TPU", extra="tpu")) from None


def _gpus(name: str, target: str, count: str) -> Sequence[Any]:
    if not count.isdigit() or not int(count) or (int(count) > _GPUS_OF_HOST and int(count) % _GPUS_OF_HOST):
        raise UsageError(
            f"--topology {name}: {count or 'no number'} of GPUs; name up to {_GPUS_OF_HOST}, or whole hosts of them,"
            " such as h100:8"
        )
    each = min(int(count), _GPUS_OF_HOST)
    shape = f"1x{int(count) // each}x{each}"
    # JAX complains of the machine's missing GPU when it loads the plugin.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.CRITICAL)
    try:
        return topologies.get_topology_desc(name, platform="cuda", topology=shape, target_config=target).devices
    except NotImplementedError:
        raise UserError(_MISSING.format(compiler="GPU", extra="gpu")) from None


def compile_step(config: TrainConfig, topology: str, devices: Sequence[Any]) -> Report:
    """Compile the step of `config` for the devices of a topology, or return what an equal program gave before.

    Raises `UsageError` for a mesh or a batch that does not fit the devices, `UserError` for a program that does not fit
    their memory.
    """
    mesh = make_mesh(config.mesh, devices)
    known = chip(devices[0].device_kind)
    if known is None:
        raise UsageError(f"--topology {topology}: nothing is known of the speed of {devices[0].device_kind!r}")
    start = time.perf_counter()
    traced = make_step(config, mesh).trace(state_shapes(config), batch_shapes(config))
    lowered = traced.lower()
    lower_seconds = time.perf_counter() - start
    path = programs_folder() / "steps" / f"{_digest(lowered.as_text(), topology, mesh)}.json"
    if path.exists():
        return _fitting(_from_json(json.loads(path.read_text())), config, mesh, known.kind)
    announce(
        Console(stderr=True, highlight=False, soft_wrap=True),
        f"the training step for {len(devices)} devices {known.kind}",
    )
    start = time.perf_counter()
    try:
        # Autotuning would run kernels.
        gpu = devices[0].platform == "gpu"
        compiled: Any = lowered.compile(compiler_options={"xla_gpu_autotune_level": "0"} if gpu else None)
    except JaxRuntimeError as error:
        raise UserError(_refusal(str(error), config, mesh, known.kind)) from None
    compile_seconds = time.perf_counter() - start
    memory, cost = compiled.memory_analysis(), analyse(compiled.as_text())
    flops = matmul_flops(traced.jaxpr) / mesh.size
    report = Report(
        topology=topology,
        device=devices[0].device_kind,
        devices=mesh.size,
        mesh={axis: mesh.shape[axis] for axis in AXES},
        batch_size=config.batch_size,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        memory_bytes=known.memory,
        flops=flops,
        model_flops=3 * sum(pretraining_flops(config.model).values()) * config.batch_size / mesh.size,
        moved=dict(cost.bytes),
        collectives=cost.collectives,
        compute_seconds=flops / known.flops,
        memory_seconds=cost.total_bytes / known.bandwidth,
        network_seconds=cost.sent_bytes / known.interconnect,
        lower_seconds=lower_seconds,
        compile_seconds=compile_seconds,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    filesystem.write_bytes(str(path), json.dumps(dataclasses.asdict(report)).encode())
    return _fitting(report, config, mesh, known.kind)


def print_report(report: Report, as_json: bool) -> None:
    """Print a report as a table, or as a line of JSON with what follows from it."""
    derived = {"step_seconds": report.step_seconds, "limit": report.limit, "utilisation": report.utilisation}
    if as_json:
        sys.stdout.write(json.dumps(dataclasses.asdict(report) | derived) + "\n")
        return
    axes = ", ".join(f"{axis} {size}" for axis, size in report.mesh.items())
    title = f"{report.devices} x {report.device} ({report.topology}); {axes}; {report.batch_size} examples a step"
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    rows = {
        "arguments (state and batch)": f"{report.argument_bytes / _MIB:,.0f} MiB",
        "temporaries": f"{report.temporary_bytes / _MIB:,.0f} MiB",
        "peak": f"{report.peak_bytes / _MIB:,.0f} MiB of {report.memory_bytes / _MIB:,.0f}",
        "operations": f"{_figure(report.flops / 1e12)} TFLOP ({_figure(report.model_flops / 1e12)} of the model)",
        "bytes moved": f"{_figure(sum(report.moved.values()) / 1e9)} GB",
        **{
            f"  {part}": f"{_figure(size / 1e9)} GB" for part, size in sorted(report.moved.items(), key=lambda p: -p[1])
        },
        **{f"{one.kind} x {one.count}": f"{_figure(one.bytes / 1e6)} MB sent" for one in report.collectives},
        "arithmetic": f"{_figure(report.compute_seconds * 1e3)} ms",
        "memory bandwidth": f"{_figure(report.memory_seconds * 1e3)} ms",
        "network": f"{_figure(report.network_seconds * 1e3)} ms",
        "step, at least": f"{_figure(report.step_seconds * 1e3)} ms, limited by {report.limit}",
        "utilisation, at most": f"{report.utilisation:.0%}",
        "tracing and lowering": f"{report.lower_seconds:.0f} s",
        "compiling": f"{report.compile_seconds:.0f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=100).print(table)


def _figure(value: float) -> str:
    """Return a figure with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _digest(program: str, topology: str, mesh: Mesh) -> str:
    compiler = "jax-cuda13-pjrt" if mesh.devices.flat[0].platform == "gpu" else "libtpu"
    versions = [metadata.version(name) for name in ("jax", "jaxlib", compiler)]
    key = json.dumps([_FORMAT, topology, dict(mesh.shape), versions])
    return hashlib.sha256(key.encode() + program.encode()).hexdigest()[:32]


def _from_json(values: dict) -> Report:
    return Report(**{**values, "collectives": tuple(Collective(**one) for one in values["collectives"])})


def _fitting(report: Report, config: TrainConfig, mesh: Mesh, kind: str) -> Report:
    """Return the report. Raises `UserError` for what does not fit a GPU, whose compiler does not look at that."""
    if report.peak_bytes > report.memory_bytes:
        needed, given = (f"{size / _GIB:.1f}G" for size in (report.peak_bytes, report.memory_bytes))
        raise UserError(_too_large(needed, given, config, mesh, kind))
    return report


def _refusal(reason: str, config: TrainConfig, mesh: Mesh, kind: str) -> str:
    """Say in one sentence why the compiler refused a program."""
    used = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm", reason)
    used = used or re.search(r"HLO temporaries \(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)", reason)
    if used is None:
        return f"the compiler refused the step: {' '.join(reason.split())[:300]}"
    return _too_large(used[1], used[2], config, mesh, kind)


def _too_large(needed: str, given: str, config: TrainConfig, mesh: Mesh, kind: str) -> str:
    each = config.batch_size // (mesh.shape["data"] * mesh.shape["fsdp"])
    return (
        f"the step needs {needed} of the {given} of one {kind} with {each} examples on each device; lower --batch-size,"
        " recompute more (--model.remat.joint full), or set --microbatches or --mesh.fsdp"
    )
