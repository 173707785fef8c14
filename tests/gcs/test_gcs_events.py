"""Figures of a run in a bucket, read by TensorBoard's own reader while they are written."""

import pytest

from shards.storage import filesystem
from train.metrics.tensorboard import EventFiles

MEGABYTE = 1 << 20
LINES = 3_000
NAMES = [f"a/figure/with/a/long/name/{i}" for i in range(20)]


@pytest.fixture
def accumulator(tmp_path):
    """A copy of the folder of events, and TensorBoard's view of it."""
    reason = "tensorboard is not installed here; the locked environment has it"
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    accumulator = reader.EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})

    def steps(folder):
        for path in filesystem.list_files(folder):
            (tmp_path / path.rpartition("/")[2]).write_bytes(filesystem.read_bytes(path))
        accumulator.Reload()
        return [event.step for event in accumulator.Scalars(NAMES[0])]

    return steps


def test_tensorboard_follows_a_run_and_its_restart(bucket, accumulator):
    place = f"{bucket}/run/events"
    files = EventFiles(place, 0)
    assert len(filesystem.list_files(place)) == 1
    for step in range(LINES):
        files.write(step, dict.fromkeys(NAMES, step / 2))
        if step == LINES // 2:
            # An object that is replaced by a longer one is read on, as a file that grows.
            files.close()
            assert accumulator(place) == list(range(step + 1))
    files.close()
    sizes = [filesystem.size(path) for path in filesystem.list_files(place)]
    assert len(sizes) > 2
    assert all(MEGABYTE - 2_000 < size <= MEGABYTE for size in sizes[:-1])
    assert accumulator(place) == list(range(LINES))

    again = EventFiles(place, 1_000)
    again.write(1_001, dict.fromkeys(NAMES, 0.0))
    again.close()
    assert accumulator(place) == list(range(1_002))
