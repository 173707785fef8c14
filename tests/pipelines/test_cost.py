"""What a dry run makes of its sample."""

import io

import pytest
from rich.console import Console

from pipelines.preprocessing.cost import Cost, Prices, start_core_hours
from pipelines.preprocessing.dry_run import costs_table
from shards.storage.errors import UsageError

SAMPLE = Cost(
    videos=10,
    cpu_seconds=3600.0,
    segment_bytes=5 * 10**7,
    examples=40.0,
    download_seconds=1800.0,
    largest_media_bytes=10**9,
)
PRICES = Prices(
    core_hour_price=2.0,
    gb_month_price=3.0,
    class_a_price=10.0,
    class_b_price=1.0,
    shuffle_gb_price=100.0,
    disk_gb_month_price=73.0,
)


def test_a_sample_is_scaled_to_all_videos():
    estimate = SAMPLE.for_videos(1000, PRICES)
    assert (estimate.core_hours, estimate.download_hours, estimate.gigabytes) == (100, 50, 5)
    assert (estimate.writes, estimate.reads) == (1000, 4000 + 1.5 * 4000)
    assert estimate.shuffle_gigabytes == pytest.approx(0.008192)
    assert estimate.disk_gigabytes == 29
    # Cores are paid for while they wait; a machine of 4 cores has one disk.
    assert (estimate.compute_price, estimate.storage_price_a_month) == (300, 15)
    assert estimate.operations_price == pytest.approx(1000 / 10_000 * 10 + 10_000 / 10_000 * 1)
    assert estimate.shuffle_price == pytest.approx(0.8192)
    assert estimate.disk_price == pytest.approx(29 * 150 / 4 / 730 * 73)
    assert estimate.hours(10) == pytest.approx(15.05)
    assert start_core_hours(256) == pytest.approx(12.8)
    assert estimate.days_of_downloads(500, 2) == 1


def test_a_price_that_is_not_known_is_not_guessed():
    estimate = SAMPLE.for_videos(1000, Prices(class_a_price=1.0))
    assert estimate.operations_price is None
    assert estimate.compute_price is None
    assert Cost(0, 0.0, 0).for_videos(5, PRICES).compute_price == 0


@pytest.mark.parametrize("name", ["core_hour_price", "class_b_price", "shuffle_gb_price"])
def test_a_price_below_zero_is_refused(name):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} -1.0 must not be negative"):
        Prices(**{name: -1.0}).check()


def test_the_table_has_a_column_for_each_number_of_videos():
    console = Console(width=200, record=True, file=io.StringIO())
    estimates = [SAMPLE.for_videos(count, Prices(core_hour_price=2.0)) for count in (1000, 2000)]
    console.print(costs_table(estimates, per_day=500))
    rows = {
        row.split("│")[1].strip(): [cell.strip() for cell in row.split("│")[2:-1]]
        for row in console.export_text().splitlines()
        if row.count("│") == 4
    }
    assert rows["hours of waiting for downloads, one after another"] == ["50.00", "100.00"]
    assert rows["days at 500 downloads per day from 1 / 16 / 256 addresses"] == ["2.0 / 0.1 / 0.0", "4.0 / 0.2 / 0.0"]
    assert rows["reads in the bucket"] == ["10,000", "20,000"]
    assert rows["GB of disk per worker"] == ["29.0", "29.0"]
    assert rows["price of compute"] == ["300.00", "600.00"]
    assert rows["price of requests"] == ["-", "-"]
    console.print(costs_table(estimates, per_day=None))
    assert "addresses" not in console.export_text()
