"""Checkpoints of a run: parameters, optimizer, step, random key and the reader's position.

Orbax writes them during training and makes each visible only when it is complete. A fingerprint of all bits is stored
beside the arrays, so that damage is detected; then the newest intact checkpoint is restored, and the log names the
damaged one. A process that is alone copies its state and leaves all the rest to a thread.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from model import checkpoints
from model.config import ReserveConfig
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.tokenizer_file import TOKENIZER_NAME
from train.bucket import BucketPath
from train.distributed import hosts
from train.mesh import state_shardings
from train.state import TrainState

_LOG = logging.getLogger(__name__)
_UNWRITABLE = (ValueError, OSError)
"""What Orbax and TensorStore raise for full disks, forbidden places and buckets that do not answer."""

_NOBODY_LISTENS = "Event loop is closed"


class CheckpointError(UserError):
    """A checkpoint could not be written, or none of those there could be read; the message says why."""


class _DamagedError(CheckpointError):
    """One checkpoint that cannot be restored."""


@dataclass(frozen=True)
class Restored:
    """A state of training on its mesh, and where the reader stood then."""

    state: TrainState
    reader: dict[str, Any]


class Checkpoints:
    """The checkpoints in a folder: the `keep` newest, and those of every `keep_every`-th step for good."""

    def __init__(self, folder: str, keep: int, keep_every: int | None = None):
        self.folder = BucketPath(folder) if filesystem.is_remote(folder) else epath.Path(Path(folder).absolute())
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, keep_period=keep_every)
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None

    def steps(self) -> list[int]:
        """Return the steps that complete checkpoints were saved at, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, reader: Mapping[str, Any]) -> None:
        """Start to save; returns when the state may change again.

        Raises `CheckpointError` if the checkpoint before cannot be written, or this one at once.
        """
        self.wait()
        step, bits = int(state.step), fingerprint(state)
        if jax.process_count() > 1:
            # Orbax lets the hosts meet by a computation, which must come at the same place among the steps of each.
            self._write(step, _tree(state), reader, bits)
        else:
            self._saving = self._thread.submit(self._write, step, _copied(_tree(state)), dict(reader), bits)

    def wait(self) -> None:
        """Return when everything is on disk. Raises `CheckpointError` if it cannot be written."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()
        try:
            self._manager.wait_until_finished()
        except _UNWRITABLE as error:
            raise self._unwritten("the last checkpoint", error) from error

    def restore(self, shapes: TrainState, mesh: Mesh) -> Restored | None:
        """Return the newest intact checkpoint, laid over the mesh whatever it was saved from; None if there is none.

        Damaged ones are moved to the folder `damaged` beside this one. Raises `CheckpointError` if no checkpoint is
        sound, and touches nothing then.
        """
        failures: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                restored = self._read(step, shapes, mesh)
            except _DamagedError as error:
                failures[step] = str(error)
                continue
            for damaged, reason in failures.items():
                aside = self._move_aside(damaged)
                _LOG.warning(
                    "checkpoint %d is damaged (%s); continuing from %d, it was moved to %s",
                    damaged,
                    reason,
                    step,
                    aside,
                )
            return restored
        if failures:
            newest = max(failures)
            raise CheckpointError(
                f"none of the {len(failures)} checkpoints in {str(self.folder)!r} can be restored, the newest,"
                f" {newest}: {failures[newest]}; restore the files or choose another --workdir"
            )
        return None

    def close(self) -> None:
        """Wait and release the folder. Raises `CheckpointError` if the last checkpoint cannot be written."""
        self.wait()
        self._thread.shutdown()
        self._manager.close()

    def _write(self, step: int, tree: dict[str, Any], reader: Mapping[str, Any], bits: jax.Array) -> None:
        beside = {"reader": dict(reader), "fingerprint": int(bits)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(tree), beside=ocp.args.JsonSave(beside))
        try:
            self._manager.save(step, args=args)
        except _UNWRITABLE as error:
            raise self._unwritten(f"checkpoint {step}", error) from error

    def _read(self, step: int, shapes: TrainState, mesh: Mesh) -> Restored:
        template = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            state_shardings(mesh, shapes),
        )
        # What one process cannot read, none may use.
        try:
            files = self._files(step, template)
        except _DamagedError:
            hosts.all_agree(False)
            raise
        if not hosts.all_agree(True):
            raise _DamagedError("another host cannot read it")
        state = TrainState(**files["state"])
        if int(fingerprint(state)) != files["beside"]["fingerprint"]:
            raise _DamagedError("its bits are not those that were saved")
        return Restored(state, files["beside"]["reader"])

    def _files(self, step: int, template: TrainState) -> Mapping[str, Any]:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(_tree(template)), beside=ocp.args.JsonRestore())
        try:
            # Orbax raises bare exceptions for files it cannot read.
            return self._manager.restore(step, args=args)
        except Exception as error:
            raise _DamagedError(" ".join(str(error).split())[:160]) from error

    def _move_aside(self, step: int) -> epath.Path:
        folder = self.folder.parent / "damaged"
        if hosts.is_first():
            folder.mkdir(parents=True, exist_ok=True)
            count = sum(1 for entry in folder.iterdir() if entry.name.split("-")[0] == str(step))
            (self.folder / str(step)).rename(folder / (f"{step}-{count}" if count else str(step)))
        hosts.wait_for_all(f"checkpoint {step} is out of the way")
        self._manager.reload()
        return folder

    def _unwritten(self, which: str, error: Exception) -> CheckpointError:
        # TensorStore's own sentence is a list of files with the cause at its end.
        full = os.strerror(errno.ENOSPC)
        reason = full if full in str(error) else " ".join(str(error).split())[:160]
        return CheckpointError(
            f"{which} cannot be written to {str(self.folder)!r}: {reason}; earlier ones are intact; make room there, or"
            " see that it may be written, and run the same command again"
        )


def silence_orbax() -> None:
    """Keep failures of Orbax's threads, which a command says in one sentence, from being printed with tracebacks."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # When one write fails Orbax closes its event loop, and TensorStore cannot report its other writes.
        if str(unraisable.exc_value) != _NOBODY_LISTENS:
            usual(unraisable)

    sys.unraisablehook = hook


@jax.jit
def fingerprint(tree: Any) -> jax.Array:
    """Return the sum of all bit patterns as uint32, the same on any mesh; one flipped bit changes it."""
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))
        total += bits.sum(dtype=jnp.uint32)
    return total


def export_published(
    state: TrainState, folder: str, tokenizer: bytes | None = None, config: ReserveConfig | None = None
) -> str:
    """Write the parameters as `ckpt_STEP` for the published code, beside tokenizer and image grid; returns the path.

    All processes take part and the first one writes. Raises `CheckpointError` for weights that float16 cannot hold, and
    `WeightsNotFiniteError`.
    """
    step = int(state.step)
    path = filesystem.join(folder, f"ckpt_{step}")
    params = hosts.whole(state.params)
    if not hosts.is_first():
        return path
    try:
        checkpoints.export(params, path, step)
    except checkpoints.CheckpointError as error:
        raise CheckpointError(str(error)) from None
    if tokenizer is not None:
        filesystem.write_bytes(filesystem.join(folder, TOKENIZER_NAME), tokenizer)
    if config is not None:
        checkpoints.write_grid(folder, config)
    return path


def _copied(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the same arrays on the host, in memory of their own; no device needs room for them."""
    jax.tree.map(lambda leaf: leaf.copy_to_host_async(), tree)
    return jax.tree.map(np.array, tree)


def _tree(state: TrainState) -> dict[str, Any]:
    """Return the fields of a state under their names, which is what lies in the files."""
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
