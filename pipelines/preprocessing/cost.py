"""What a job will cost: the cost of a sample times the number of videos, and prices where they are known."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from shards.storage.errors import UsageError

WRITES_PER_VIDEO = 1
"""Objects that the job creates for a video (operations of class A): its segments, or its outcome."""

READS_PER_VIDEO = 4
"""Requests around that object (class B): lookups when it is created and on a retry, and its header for packing."""

READS_PER_EXAMPLE = 1.5
"""Reads when a shard is written (class B): one for each video that an example shows, most of them show one or two."""

SHUFFLE_BYTES_PER_VIDEO = 2 * 4096
"""A video goes through two shuffles as a reference: its id, the lengths of its segments, and a digest."""

CORES_PER_WORKER = 4
"""Of the machine type in docs/dataflow.md, n2-standard-4."""

BOOT_DISK_GIGABYTES = 25.0
"""The disk of a worker for system, image and logs: Dataflow's default for batch jobs that use its shuffle service
(cloud.google.com/dataflow/docs/shuffle-for-batch)."""

START_HOURS = 3 / 60
"""From the request for a machine until it works: its start and the pull of the image. An estimate, not measured."""

_HOURS_A_MONTH = 730
_OPERATIONS_OF_A_PRICE = 10_000


@dataclass(frozen=True)
class Prices:
    """What a dry run multiplies its figures with; the currency is whatever the prices are in."""

    core_hour_price: float | None = None
    """Price of one core for one hour."""
    gb_month_price: float | None = None
    """Price of storing one gigabyte for one month."""
    class_a_price: float | None = None
    """Price of 10,000 operations of class A (writes) in the bucket."""
    class_b_price: float | None = None
    """Price of 10,000 operations of class B (reads) in the bucket."""
    shuffle_gb_price: float | None = None
    """Price of one gigabyte that goes through Dataflow's shuffle."""
    disk_gb_month_price: float | None = None
    """Price of one gigabyte of a worker's disk for one month."""
    save_cost: str | None = None
    """Write the estimate of a dry run to this file, as JSON."""

    def check(self) -> None:
        """Raises `UsageError` for a price below zero."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "save_cost" and value is not None and value < 0:
                raise UsageError(f"--{field.name.replace('_', '-')} {value} must not be negative")


@dataclass(frozen=True)
class Estimate:
    """What so many videos will cost; prices are None where they were not given.

    `download_hours` is the time that one core waits which downloads the videos one after another; cores are paid for
    while they wait, so `compute_price` includes it. `disk_gigabytes` is what one worker needs.
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
        """How long the job takes on so many cores, the start of the machines included."""
        return (self.core_hours + self.download_hours) / cores + START_HOURS

    def days_of_downloads(self, per_day: int, addresses: int) -> float:
        """How long the downloads take at so many a day from each address."""
        return self.videos / (per_day * addresses)


@dataclass(frozen=True)
class Cost:
    """The cost of a sample: videos, seconds of CPU, bytes of segments, examples that they fill, seconds of waiting for
    downloads, and bytes of the largest media file."""

    videos: int
    cpu_seconds: float
    segment_bytes: int
    examples: float = 0.0
    download_seconds: float = 0.0
    largest_media_bytes: int = 0

    def for_videos(self, count: int, prices: Prices) -> Estimate:
        """The cost of `count` videos like those of the sample."""
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
    """What so many cores cost before they work."""
    return cores * START_HOURS


def _priced(*amounts: tuple[float, float | None]) -> float | None:
    """The sum of amounts times their prices; None if one is not known."""
    prices = [price for _, price in amounts]
    return None if None in prices else sum(amount * price for amount, price in amounts)
