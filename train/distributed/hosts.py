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

# What all processes know before there are devices has no public name; Orbax takes it from here too.
from jax._src.distributed import global_state
from jax.experimental import multihost_utils

from shards.storage.errors import UsageError, UserError
from train.distributed.peer_monitor import Place
from train.distributed.processes import AUTO, Hosts

_ADDRESS_KEY = "reservoir/monitor"
_ADDRESS_MILLISECONDS = 60_000


class HostsError(UserError):
    """The processes of a run could not connect."""


def join(given: Hosts, address: str) -> Place:
    """Connect to the other processes of the run; must come before anything asks for devices.

    `address` is the port and the token of this process's `PeerMonitor`; the place names those of process 0. Raises
    `UsageError` for impossible numbers, `HostsError` if the others do not come.
    """
    given.check()
    try:
        if given.coordinator == AUTO:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(given.coordinator, given.hosts, given.host)
        client, coordinator = global_state.client, global_state.coordinator_address
        if client is None or coordinator is None:
            raise HostsError(f"could not connect to the coordinator {given.coordinator}")
        if global_state.process_id == 0:
            client.key_value_set(_ADDRESS_KEY, address)
        first = client.blocking_key_value_get(_ADDRESS_KEY, _ADDRESS_MILLISECONDS)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise HostsError(f"could not connect to the coordinator {given.coordinator}: {reason}") from error
    host = coordinator.rpartition(":")[0].strip("[]")
    port, token = first.split()
    return Place(global_state.process_id, global_state.num_processes, host, int(port), token)


def is_first() -> bool:
    """Return whether this process writes what is written once."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Return when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def all_agree(holds: bool) -> bool:
    """Return whether something holds on every process; all must ask."""
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
    """Return the arrays of a tree in full, as NumPy arrays on every process, wherever their parts lie; all must ask."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda leaf: np.asarray(multihost_utils.process_allgather(leaf, tiled=True)), tree)


class Stop:
    """Whether to stop before a step because a process received SIGTERM; the same on all processes.

    With several processes, JAX's preemption service chooses the first step that no process has started.
    """

    def __init__(self) -> None:
        self.requested = False
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._request)

    def __call__(self, step: int) -> bool:
        """Return whether to stop after `step`; all processes call this, for ascending steps."""
        if jax.process_count() > 1:
            self.requested = self.requested or multihost_utils.reached_preemption_sync_point(step)
        return self.requested

    def _request(self, number: int, frame: object) -> None:
        del number, frame
        self.requested = True
