"""Several processes as one run: how they find each other, agree, and stop at the same step.

Every host of a pod runs the same command. Each reads its own part of a batch, all take part in every step and every
checkpoint, and the first one alone writes figures and weights. Alone, a process agrees with itself.
"""

from __future__ import annotations

import hashlib
import signal
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from shards.errors import UsageError, UserError
from train.processes import AUTO, Hosts


class HostsError(UserError):
    """The processes of a run did not find each other."""


def join(given: Hosts) -> None:
    """Meet the other processes of the run; must come before anything asks for devices.

    Raises `UsageError` for numbers that cannot be, `HostsError` if the others do not come.
    """
    given.check()
    if given.coordinator is None:
        return
    try:
        if given.coordinator == AUTO:
            jax.distributed.initialize()
            return
        jax.distributed.initialize(given.coordinator, given.hosts, given.host)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise HostsError(f"the processes of --coordinator {given.coordinator} did not meet: {reason}") from error


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Return when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def all_agree(holds: bool) -> bool:
    """Whether something holds on every process; all must ask."""
    if jax.process_count() == 1:
        return holds
    return bool(multihost_utils.process_allgather(np.array(holds)).all())


def check_same(what: bytes) -> None:
    """Raise `UsageError` on every process unless all were started with the same options."""
    if jax.process_count() == 1:
        return
    digests = multihost_utils.process_allgather(np.frombuffer(hashlib.sha256(what).digest(), np.uint8))
    different = np.flatnonzero((digests != digests[0]).any(axis=1))
    if different.size:
        raise UsageError(f"process {different[0]} was started with other options than process 0; give all the same")


def whole(tree: Any) -> Any:
    """The arrays of a tree in full, as NumPy arrays on every process, wherever their parts lie; all must ask."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda leaf: np.asarray(multihost_utils.process_allgather(leaf, tiled=True)), tree)


class Stop:
    """Whether to stop before a step because some process got SIGTERM; the same answer on all of them.

    Alone, the answer comes at once. Together, a notice takes JAX's preemption service a moment to reach everybody, and
    the step is the first one that nobody has begun.
    """

    def __init__(self) -> None:
        self.asked = False
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._ask)

    def __call__(self, step: int) -> bool:
        """Whether to stop instead of going on from `step`; all must ask, for ascending steps."""
        if jax.process_count() > 1:
            self.asked = self.asked or multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def _ask(self, number: int, frame: object) -> None:
        del number, frame
        self.asked = True
