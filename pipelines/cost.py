"""What a job will cost: the cost of a sample times the number of videos, and prices where they are known."""

from __future__ import annotations

from dataclasses import dataclass

from shards.errors import UsageError


@dataclass(frozen=True)
class Prices:
    """What a dry run multiplies its figures with; the currency is whatever the prices are in."""

    core_hour_price: float | None = None
    """Price of one core for one hour."""
    gb_month_price: float | None = None
    """Price of keeping one gigabyte for one month."""
    save_cost: str | None = None
    """Write the estimate of a dry run to this file, as JSON."""

    def check(self) -> None:
        """Raises `UsageError` for a price below zero."""
        for name in ("core_hour_price", "gb_month_price"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"--{name.replace('_', '-')} {value} must not be negative")


@dataclass(frozen=True)
class Estimate:
    """What so many videos will cost; prices are None where they were not given."""

    videos: int
    core_hours: float
    gigabytes: float
    compute_price: float | None
    storage_price_a_month: float | None


@dataclass(frozen=True)
class Cost:
    """The cost of a sample: videos, seconds of CPU, bytes of segments."""

    videos: int
    cpu_seconds: float
    segment_bytes: int

    def for_videos(self, count: int, prices: Prices) -> Estimate:
        """The cost of `count` videos like those of the sample."""
        share = count / max(self.videos, 1)
        core_hours, gigabytes = self.cpu_seconds * share / 3600, self.segment_bytes * share / 1e9
        compute, storage = _priced(core_hours, prices.core_hour_price), _priced(gigabytes, prices.gb_month_price)
        return Estimate(count, core_hours, gigabytes, compute, storage)


def _priced(amount: float, price: float | None) -> float | None:
    return None if price is None else amount * price
