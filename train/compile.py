"""The command that compiles a training step for accelerators that are not present: `python -m train.compile base
--topology v4:4x4x4`.

It needs no TPU or GPU, only their compilers (the extras `tpu` and `gpu`), and prints what the step takes there: memory,
arithmetic, bytes moved, collectives, and the time that a step takes at least. The configuration's flags are those of
`train.pretrain`. A result is kept under the digest of its program, because compiling takes minutes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from shards import command_line
from shards.command_line import run_command
from train.config import TrainConfig
from train.configs import DESCRIPTIONS, PRESETS

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What keeps the compiler from looking for a TPU and from locking it; the type is any that exists."""

STORED = ("tokenizer", "data", "init")
"""Keys of a run's stored configuration that are no options of this command."""


@dataclass(frozen=True)
class Compile:
    """Compile the training step of a preset for accelerators that are not there, and print what it costs on them."""

    topology: str
    """Generation and chips of a TPU slice, such as v4:4x4x4, v5e:8x8, v5p:2x2x4 or v6e:16x16, or h100 or h200 and their
    number, such as h100:8."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    json: bool = False
    """Print one line of JSON instead of a table."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    presets = {name: (DESCRIPTIONS[name], Compile(tyro.MISSING, config)) for name, config in PRESETS.items()}
    cli = tyro.extras.overridable_config_cli
    options = command_line.parse(cli, presets, "train.compile", argv, names=PRESETS, noun="preset", stored=STORED)
    # JAX reads these when it is imported, and would look for the TPU of this machine.
    os.environ.update(ENVIRONMENT)
    from train.compilation.ahead_of_time import compile_step, print_report, topology_devices
    from train.compilation.layouts import for_devices

    devices = topology_devices(options.topology)
    config = for_devices(options.config, devices)
    print_report(compile_step(config, options.topology, devices), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
