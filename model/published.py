"""Load checkpoints by published name, path or address: find, download, verify.

A file is trusted only after its whole parameter tree agrees with the model it is loaded into; the error names every
difference.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax

from model.checkpoints import CheckpointError, config_of, decode, read_grid, steps_in, verify
from model.config import BASE, DEFAULT_GRID, LARGE, ConfigError, ReserveConfig
from model.pretrained import Pretrained
from model.transformer import stack_layers
from shards.storage import filesystem
from shards.storage.fetch import RemoteFile, fetch
from shards.tokenizer_file import TOKENIZER_NAME

_BUCKET = "gs://merlotreserve"
_FOLDERS = {"vcr": "vcr_ckpts", "tvqa": "tvqa_ckpts"}
_SIZES = {"base": BASE, "large": LARGE}
_LOG = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]


def load(
    name_or_path: str | Path,
    grid: tuple[int, int] | None = DEFAULT_GRID,
    config: ReserveConfig | None = None,
    cache_dir: str | Path | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """Return a published model by name, or a checkpoint by path or `gs://` or `https://` address.

    Names are `base`, `large`, `vcr_finetune_base` and so on. `grid` picks the checkpoint adapted to it; None takes the
    one that is written beside the checkpoint, else the default. A `config` decides everything, grid and dtype
    included, and otherwise the sizes are read off the file. Parameters become float32; `dtype` is that of the
    computation, float32 unless told. A folder, also one in a bucket, means its highest `ckpt_STEP`. What comes from the
    web is kept in `cache_dir`, continued if broken, and reported to `progress(done, total)` in bytes. Raises
    `CheckpointError`, `ConfigError`, `FetchError` or `StorageError`.
    """
    name = str(name_or_path)
    if grid is None:
        grid = config.grid if config else _grid_beside(name) or DEFAULT_GRID
    if config is None:
        image_grid = BASE.with_grid(grid).grid
    elif tuple(grid) not in (DEFAULT_GRID, config.grid):
        raise ConfigError(f"grid {tuple(grid)} disagrees with the grid {config.grid} of config; give only one")
    else:
        image_grid = config.grid
    folder = None if cache_dir is None else Path(cache_dir)
    remote = remote_file(name, image_grid)
    if remote:
        data = _fetched(remote, folder, progress or _logged(remote.name))
        place = remote.name
    else:
        place = _file_at(name)
        data = _read(place)
    try:
        params = decode(data, place)
        config = config_of(params, place, image_grid, dtype) if config is None else config
        verify(params, config, place)
    except CheckpointError as error:
        if remote:
            _forget(remote, folder)
            raise CheckpointError(f"{error}; the download was removed from the cache") from None
        raise
    if dtype is not None:
        config = replace(config, dtype=dtype)
    params = stack_layers(params) if config.scan_layers else params
    beside = filesystem.join(filesystem.folder_of(place), TOKENIZER_NAME)
    tokenizer = beside if not remote and filesystem.exists(beside) else None
    return Pretrained(jax.device_put(params), config, tokenizer, folder)


def remote_file(name: str, grid: tuple[int, int]) -> RemoteFile | None:
    """Return where a published name or a web address is on the net; None for a path, on a disk or in a bucket."""
    if name in _SIZES:
        file = name if tuple(grid) == BASE.grid else f"{name}_resadapt"
        return RemoteFile(file, f"{_BUCKET}/ckpts/{file}")
    if match := re.fullmatch(r"(vcr|tvqa)_finetune_(base|large)", name):
        return RemoteFile(name, f"{_BUCKET}/{_FOLDERS[match[1]]}/{name}")
    if name.startswith(("https://", "http://")):
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return RemoteFile(f"{digest}-{name.rstrip('/').rsplit('/', 1)[-1]}", name)
    return None


def _grid_beside(name: str) -> tuple[int, int] | None:
    if remote_file(name, DEFAULT_GRID):
        return None
    return read_grid(name if steps_in(name) else filesystem.folder_of(name))


def _fetched(remote: RemoteFile, folder: Path | None, progress: Progress) -> bytes:
    return fetch(remote, folder, progress).read_bytes()


def _forget(remote: RemoteFile, folder: Path | None) -> None:
    """Drop a download that proved to be no checkpoint, so that the next call does not trust it."""
    path = fetch(remote, folder)
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
    path.unlink()


def _logged(name: str) -> Progress:
    """Report a download to the log at every tenth of it."""
    reported = -1

    def progress(done: int, total: int | None) -> None:
        nonlocal reported
        tenth = 10 * done // total if total else done >> 28
        if tenth > reported:
            reported = tenth
            _LOG.info("downloading %s: %d of %s MiB", name, done >> 20, total >> 20 if total else "?")

    return progress


def _file_at(name: str) -> str:
    """Return the checkpoint at a path: the file itself, or the newest in a folder."""
    if steps := steps_in(name):
        return steps[max(steps)]
    if not filesystem.exists(name):
        known = ", ".join([*_SIZES, "vcr_finetune_base", "tvqa_finetune_base"])
        raise CheckpointError(
            f"{name!r} is neither a file nor a published name; published are {known} and their large forms"
        )
    return name


def _read(place: str) -> bytes:
    try:
        return filesystem.read_bytes(place)
    except filesystem.StorageError as error:
        raise CheckpointError(f"{place!r} has no file ckpt_STEP, and it is not a checkpoint itself: {error}") from None
