"""Load weights for the inference commands, by published name, checkpoint path or address.

Compiled programs are cached on disk, so that later commands start faster; JAX_COMPILATION_CACHE_DIR sets another folder
for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
from rich.console import Console

from model import published
from model.checkpoint_location import locate
from model.checkpoints import CheckpointError
from model.config import ConfigError
from model.pretrained import Pretrained
from model.reserve import InputError
from shards.storage.errors import UsageError
from shards.storage.fetch import programs_folder


def load_weights(checkpoint: str, grid: tuple[int, int] | None = None) -> Pretrained:
    """Load a model from any location that `model.checkpoint_location.locate` accepts, and print the location.

    `grid` defaults to the one that the model was trained with, if known. Raises `UsageError` if it is not a checkpoint,
    and `FetchError` if it cannot be downloaded.
    """
    # JAX adds its options to this object at run time.
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(programs_folder()))
    try:
        location = locate(checkpoint)
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        console.print(f"weights: {location}")
        return published.load(location.path, grid=grid)
    except (CheckpointError, ConfigError, InputError) as error:
        raise UsageError(f"--checkpoint {checkpoint}: {error}") from None


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """Convert the model's errors about prompts and options into `UsageError`."""
    try:
        yield
    except InputError as error:
        raise UsageError(str(error)) from None
