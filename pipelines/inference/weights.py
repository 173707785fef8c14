"""Weights for the commands that ask: published names, exported checkpoints and addresses, with errors in one sentence.

Compiled programs are kept in the cache, so that the second command of a day starts at once; JAX_COMPILATION_CACHE_DIR
names another place for them.
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
    """Load the model behind whatever `model.checkpoint_location.locate` takes, and print which it is.

    `grid` None takes the one that it was trained with, if that is known. Raises `UsageError` for what is not a
    checkpoint and `FetchError` for what cannot be downloaded.
    """
    if jax.config.jax_compilation_cache_dir is None:
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
    """Turn what the model says about prompts and options into the end of a command."""
    try:
        yield
    except InputError as error:
        raise UsageError(str(error)) from None
