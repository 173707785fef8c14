"""From whatever names weights to the checkpoint that is meant: one rule for all commands.

A work folder of pretraining or finetuning stands for its exported weights; a folder for its newest `ckpt_STEP`; files,
addresses and published names for themselves. The configuration of a run is known to all that lies in its work folder.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.checkpoints import CheckpointError, steps_in
from model.config import DEFAULT_GRID
from model.published import remote_file
from shards.storage import filesystem
from shards.storage.stored_config import CONFIG_NAME

CHECKPOINTS_NAME = "checkpoints"
"""The folder of a run with the states that it continues from."""
EXPORT_NAMES = ("export", "best")
"""The folders of a run with weights for others: of pretraining, and of the best epoch of finetuning."""


@dataclass(frozen=True)
class Location:
    """A checkpoint: its `path`, which `model.published.load` takes, and the work folder of its run if it has one."""

    path: str
    run: str | None = None

    def __str__(self) -> str:
        return self.path if self.run is None else f"{self.path} of the run {self.run}"


def locate(given: str) -> Location:
    """Find the checkpoint behind a work folder, an export, a file, a bucket path, an address or a published name.

    Raises `CheckpointError` for a work folder that holds no exported weights yet, and for the states it continues from.
    """
    if remote_file(given, DEFAULT_GRID) is not None:
        return Location(given)
    path = given.rstrip("/") or given
    if is_run(path):
        for name in EXPORT_NAMES:
            folder = filesystem.join(path, name)
            if steps := steps_in(folder):
                return Location(steps[max(steps)], path)
        raise CheckpointError(
            f"{given!r} holds no exported weights yet; let its run finish, or give another checkpoint"
        )
    if not (steps := steps_in(path)) and CHECKPOINTS_NAME in (_name(path), _name(filesystem.folder_of(path))):
        raise CheckpointError(f"{given!r} is a state to continue from, not exported weights; give its work folder")
    file = steps[max(steps)] if steps else path
    folder = filesystem.folder_of(file)
    work = filesystem.folder_of(folder)
    return Location(file, work if _name(folder) in EXPORT_NAMES and is_run(work) else None)


def is_run(folder: str) -> bool:
    """Return whether a folder is the work folder of a run."""
    return filesystem.exists(filesystem.join(folder, CONFIG_NAME))


def _name(path: str) -> str:
    return path.rpartition("/")[2]
