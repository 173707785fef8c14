"""The compilation of a run's programs, its longest silence: the line before it, and where the programs are kept."""

from __future__ import annotations

import jax
from rich.console import Console

from shards.storage import filesystem

NAME = "compiled"


def keep_programs(workdir: str) -> None:
    """Keep compiled programs in a work folder in a bucket, unless JAX was told to keep them elsewhere.

    The disk of a container or a TPU host goes with it, and the next start would compile everything again. JAX reads
    and writes the objects through the paths of `train.bucket`, and continues without them where that fails. It reads
    the setting once, so this comes before the first compilation.
    """
    if not filesystem.is_remote(workdir) or jax.config.values["jax_compilation_cache_dir"]:
        return
    # A run on a disk needs no client of a bucket.
    from train import bucket

    jax.config.update("jax_compilation_cache_dir", str(bucket.BucketPath(filesystem.join(workdir, NAME))))


def announce(console: Console, program: str) -> None:
    """Print that `program` is about to be compiled."""
    console.print(f"compiling {program} (tiny: about 20 s on two cores; larger models: minutes) ...")
