"""Estimate the cost of a job from the cost of a sample, the number of videos, and known prices."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import tyro

from shards.storage.errors import UsageError

WRITES_PER_VIDEO = 1
"""Objects that the job creates per video (class A operations): its segments, or its outcome."""

READS_PER_VIDEO = 4
"""Requests for that object (class B operations): lookups before it is created and on retries, and its header."""

READS_PER_EXAMPLE = 1.5
"""Reads when a shard is written (class B operations): one per video of an example; most examples have one or two."""

SHUFFLE_BYTES_PER_VIDEO = 2 * 4096
"""A video is shuffled twice, as a reference: its id, the lengths of its segments, and a digest."""

CORES_PER_WORKER = 4
"""Cores of the machine type in docs/dataflow.md, n2-standard-4."""

BOOT_DISK_GIGABYTES = 25.0
"""Disk of a worker for system, image and logs: Dataflow's default for batch jobs that use its shuffle service
(cloud.google.com/dataflow/docs/shuffle-for-batch)."""

START_HOURS = 3 / 60
"""Time from the request for a machine until it works, to start and to pull the image. An estimate, not measured."""

_HOURS_A_MONTH = 730
_OPERATIONS_OF_A_PRICE = 10_000


@dataclass(frozen=True)
class Prices:
    """Prices for the estimate of a dry run, in any currency."""

    core_hour_price: float | None = None
    """Price of one core for one hour."""
    gb_month_price: float | None = None
    """Price of storing one gigabyte for one month."""
    class_a_price: float | None = None
    """Price of 10,000 class A operations (writes) in the bucket."""
    class_b_price: float | None = None
    """Price of 10,000 class B operations (reads) in the bucket."""
    shuffle_gb_price: float | None = None
    """Price of one gigabyte processed by Dataflow's shuffle."""
    disk_gb_month_price: float | None = None
    """Price of one gigabyte of a worker's disk for one month."""
    save_cost: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the estimate of a dry run to this file, as JSON."""

    def check(self) -> None:
        """Raise `UsageError` for a negative price."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "save_cost" and value is not None and value < 0:
                raise UsageError(f"--{field.name.replace('_', '-')} {value} must not be negative")


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a number of videos; totals without known prices are `None`.

    `download_hours` is the time that one core would wait if it downloaded the videos one after another; waiting cores
    are paid for, so `compute_price` includes it. `disk_gigabytes` is the disk size that one worker needs.
    """

    videos: int
    core_hours: float
    download_hours: float
    gigabytes: float
    writes: float
    reads: float
    shuffle_gigabytes: float
    disk_gigabytes: float
    compute_price: float | None
    storage_price_a_month: float | None
    operations_price: float | None
    shuffle_price: float | None
    disk_price: float | None

    def hours(self, cores: int) -> float:
        """Return the duration of the job on a number of cores, in hours, including the start of the machines."""
        return (self.core_hours + self.download_hours) / cores + START_HOURS

    def days_of_downloads(self, per_day: int, addresses: int) -> float:
        """Return the duration of the downloads in days, with `per_day` downloads from each address."""
        return self.videos / (per_day * addresses)


@dataclass(frozen=True)
class Cost:
    """The cost of a sample: videos, CPU seconds, bytes of segments, examples, seconds of waiting for downloads, and
    bytes of the largest media file."""

    videos: int
    cpu_seconds: float
    segment_bytes: int
    examples: float = 0.0
    download_seconds: float = 0.0
    largest_media_bytes: int = 0

    def for_videos(self, count: int, prices: Prices) -> Estimate:
        """Return the estimated cost of `count` videos like those of the sample."""
        share = count / max(self.videos, 1)
        core_hours, download_hours = self.cpu_seconds * share / 3600, self.download_seconds * share / 3600
        gigabytes, shuffle = self.segment_bytes * share / 1e9, SHUFFLE_BYTES_PER_VIDEO * count / 1e9
        writes = WRITES_PER_VIDEO * count
        reads = READS_PER_VIDEO * count + READS_PER_EXAMPLE * self.examples * share
        disk = BOOT_DISK_GIGABYTES + CORES_PER_WORKER * self.largest_media_bytes / 1e9
        paid_hours = core_hours + download_hours
        return Estimate(
            count,
            core_hours,
            download_hours,
            gigabytes,
            writes,
            reads,
            shuffle,
            disk,
            compute_price=_priced((paid_hours, prices.core_hour_price)),
            storage_price_a_month=_priced((gigabytes, prices.gb_month_price)),
            operations_price=_priced(
                (writes / _OPERATIONS_OF_A_PRICE, prices.class_a_price),
                (reads / _OPERATIONS_OF_A_PRICE, prices.class_b_price),
            ),
            shuffle_price=_priced((shuffle, prices.shuffle_gb_price)),
            disk_price=_priced((disk * paid_hours / CORES_PER_WORKER / _HOURS_A_MONTH, prices.disk_gb_month_price)),
        )


def start_core_hours(cores: int) -> float:
    """Return the core-hours that a number of cores take to start."""
    return cores * START_HOURS


def _priced(*amounts: tuple[float, float | None]) -> float | None:
    """Return the sum of amounts times their prices, or `None` if a price is not known."""
    total = 0.0
    for amount, price in amounts:
        if price is None:
            return None
        total += amount * price
    return total
