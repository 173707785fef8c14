"""Which of how many processes of a run this one is, as options with their checks."""

from __future__ import annotations

from dataclasses import dataclass

from shards.storage.errors import UsageError

AUTO = "auto"
"""A coordinator that the cluster names."""


@dataclass(frozen=True)
class Hosts:
    """The processes of a run; by default there is only this one."""

    coordinator: str | None = None
    """HOST:PORT of process 0, the same for all processes; "auto" asks a TPU pod, Slurm or MPI."""
    hosts: int | None = None
    """Number of processes of the run."""
    host: int | None = None
    """Number of this process, from 0."""

    def check(self) -> None:
        """Raise `UsageError` for numbers that are not valid."""
        numbers = (self.hosts, self.host)
        if self.coordinator is None:
            if numbers != (None, None):
                raise UsageError(f"--hosts {self.hosts} --host {self.host} need --coordinator HOST:PORT")
        elif self.coordinator == AUTO:
            if numbers != (None, None):
                raise UsageError("--coordinator auto finds --hosts and --host by itself; leave them out")
        elif self.hosts is None or self.host is None:
            raise UsageError(f"--coordinator {self.coordinator} needs --hosts and --host")
        elif not 0 <= self.host < self.hosts:
            raise UsageError(f"--host {self.host} is not one of 0 to {self.hosts - 1}, the processes of --hosts")
