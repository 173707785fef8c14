"""Speed, memory and compile time of the network against the same network written plainly, in one run.

    python -m benchmarks.model [--sizes tiny mid base] [--examples 2] [--rounds 3]

"plain" is float32 with unrolled layers, attention as explicit products and softmax, and nothing recomputed. A train
step is the pretraining forward, its losses, their gradients and a plain descent update. Memory is what the compiler
allots beside the arguments. On a GPU every variant but "plain" computes in bfloat16, and utilisation is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from model.config import BASE, LARGE, TINY, Remat, ReserveConfig
from model.flops import pretraining_flops
from model.losses import contrastive
from model.objectives import batch_shapes, pretraining_outputs
from model.reserve import MerlotReserve, parameter_shapes
from shards.tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO
from train.compilation import devices

MID = dataclasses.replace(
    LARGE,
    hidden_size=256,
    vocabulary_size=4096,
    grid=(4, 6),
    segments=4,
    text_length=68,
    sequence_length=80,
    random_text_spans=8,
    spans_to_include=10,
)
"""As deep as the large model, but narrow and short: what scanning the layers saves shows without its arithmetic."""

COLUMNS = ("compile s", "CPU s", "MiB", "step s", "forward s", "examples/s", "utilisation", "step", "compile")

SIZES = {"tiny": TINY, "mid": MID, "base": BASE, "large": LARGE}


def variants(config: ReserveConfig) -> dict[str, ReserveConfig]:
    """The ways to run one model that are compared, the baseline first."""
    dtype = "bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32"
    plain = dataclasses.replace(config, dtype="float32", parity=True, scan_layers=False, remat=Remat())
    unrolled = dataclasses.replace(config, dtype=dtype, parity=False, scan_layers=False, remat=Remat())
    scanned = dataclasses.replace(unrolled, scan_layers=True)
    return {
        "plain": plain,
        "unrolled": unrolled,
        "scanned": scanned,
        "scanned, remat dots": dataclasses.replace(scanned, remat=Remat("dots", "dots", "dots", "dots")),
        "scanned, remat full": dataclasses.replace(scanned, remat=Remat("full", "full", "full", "full")),
    }


def random_batch(config: ReserveConfig, examples: int) -> dict[str, np.ndarray]:
    """A batch with masks and pointers in plausible numbers; its contents do not change the cost."""
    rng = np.random.default_rng(0)
    batch = {}
    for name, spec in batch_shapes(config, examples).items():
        if spec.dtype == jnp.int32:
            batch[name] = rng.integers(10, min(config.vocabulary_size, 256), spec.shape).astype(np.int32)
        else:
            batch[name] = rng.random(spec.shape, np.float32).astype(spec.dtype)
        if name.endswith("audio_ptr"):
            batch[name] %= config.audio_spans
        if name.endswith("text_ptr"):
            batch[name] %= config.spans_per_example
    batch["video_src_index"][:] = 0
    batch["text2audio"][..., 1:24:2] = MASKAUDIO
    batch["text2audio"][..., :24:2] = MASK
    batch["audio2text"][..., :12] = MASK
    batch["audio2text"][..., 12:48] = AUDIOSPAN
    batch["audio_text_matching"][..., : config.segments] = LTOVPOOL
    return batch


def loss(config: ReserveConfig, params: dict, batch: dict, rng: jax.Array) -> jax.Array:
    """The total pretraining loss."""
    return contrastive(pretraining_outputs(MerlotReserve(config), params, batch, rng), parity=config.parity)[0]


def train_step(config: ReserveConfig, params: dict, batch: dict, rng: jax.Array) -> tuple[dict, jax.Array]:
    """One step of plain gradient descent."""
    value, gradients = jax.value_and_grad(functools.partial(loss, config))(params, batch, rng)
    return jax.tree.map(lambda p, g: p - 1e-5 * g, params, gradients), value


def random_parameters(config: ReserveConfig) -> dict:
    """Parameters of the right shapes and about the right size; drawing them properly would cost a compilation."""
    rng = np.random.default_rng(0)
    draw = {"scale": lambda shape: np.ones(shape, np.float32), "bias": lambda shape: np.zeros(shape, np.float32)}

    def one(path, leaf):
        make = draw.get(path[-1].key, lambda shape: 0.02 * rng.standard_normal(shape, np.float32))
        return jnp.asarray(make(leaf.shape))

    return jax.tree_util.tree_map_with_path(one, parameter_shapes(config))


@dataclasses.dataclass
class Run:
    """One variant, compiled, with the seconds of each of its calls."""

    config: ReserveConfig
    step: Callable[[], object]
    forward: Callable[[], object]
    compile_cpu_s: float
    compile_s: float
    memory_mib: float
    step_s: list[float] = dataclasses.field(default_factory=list)
    forward_s: list[float] = dataclasses.field(default_factory=list)


def compiled(config: ReserveConfig, params: dict, examples: int) -> Run:
    """Trace, lower and compile one variant; the forward pass is compiled apart and not counted.

    The seconds of this process's CPU are given too, since other jobs disturb them least.
    """
    batch, rng = jax.device_put(random_batch(config, examples)), jax.random.key(0)
    start, wall_start = time.process_time(), time.perf_counter()
    step = jax.jit(functools.partial(train_step, config)).lower(params, batch, rng).compile()
    seconds, wall = time.process_time() - start, time.perf_counter() - wall_start
    forward = jax.jit(functools.partial(loss, config)).lower(params, batch, rng).compile()
    memory = step.memory_analysis().temp_size_in_bytes / 2**20
    arrays = (params, batch, rng)
    return Run(config, functools.partial(step, *arrays), functools.partial(forward, *arrays), seconds, wall, memory)


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds of one call, until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def measure(configs: dict[str, ReserveConfig], examples: int, rounds: int) -> dict[str, Run]:
    """Compile all variants, then time them in turns, so that a busy machine is busy for all."""
    trees: dict[bool, dict] = {}
    runs = {}
    for name, config in configs.items():
        if config.scan_layers not in trees:
            trees[config.scan_layers] = random_parameters(config)
        runs[name] = compiled(config, trees[config.scan_layers], examples)
    for index in range(rounds + 1 if rounds else 0):
        for run in runs.values():  # the first round only warms up
            times = seconds_of(run.step), seconds_of(run.forward)
            if index:
                run.step_s.append(times[0])
                run.forward_s.append(times[1])
    return runs


def utilisation(config: ReserveConfig, examples: int, step_s: float) -> float | None:
    """Share of the device's peak that the model's own arithmetic reaches; None where the peak is unknown."""
    return devices.utilisation(3 * examples * sum(pretraining_flops(config).values()) / step_s)


def main() -> None:
    """Print one table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "mid"])
    parser.add_argument("--variants", nargs="+", help="names of variants; all by default")
    parser.add_argument("--examples", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="timed calls; the fastest counts; 0: compile only")
    args = parser.parse_args()
    console = Console(width=120)
    for size in args.sizes:
        tera = sum(pretraining_flops(SIZES[size]).values()) / 1e12
        title = f"{size}, {args.examples} examples on {jax.devices()[0].device_kind}, {tera:.3g} TFLOP forward each"
        table = Table(title=title)
        for column in ("", *COLUMNS):
            table.add_column(column, justify="left" if not column else "right")
        configs = {n: c for n, c in variants(SIZES[size]).items() if not args.variants or n in args.variants}
        runs = measure(configs, args.examples, args.rounds)
        first = next(iter(runs.values()))
        for name, run in runs.items():
            compile_cells = [f"{run.compile_s:.1f}", f"{run.compile_cpu_s:.1f}"]
            times = ["-"] * 5
            if run.step_s:
                step_s = min(run.step_s)
                share = utilisation(run.config, args.examples, step_s)
                times = [
                    f"{step_s:.3f}",
                    f"{min(run.forward_s):.3f}",
                    f"{args.examples / step_s:.2f}",
                    "-" if share is None else f"{share:.1%}",
                    f"{min(first.step_s) / step_s:.2f}x",
                ]
            compile_ratio = f"{first.compile_s / run.compile_s:.2f}x"
            table.add_row(name, *compile_cells, f"{run.memory_mib:.0f}", *times, compile_ratio)
        console.print(table)


if __name__ == "__main__":
    main()
