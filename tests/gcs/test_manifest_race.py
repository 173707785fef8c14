"""Writers of one manifest at once lose nothing, on a disk and in a bucket."""

import pytest

from benchmarks.faults import race_for_manifest
from shards.dataset import manifest


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_four_writers_of_one_manifest(place, bucket, tmp_path, faults):
    out = f"{bucket}/data" if place == "bucket" else str(tmp_path / "data")
    assert race_for_manifest(out, 3) == (0, 0)
    held = manifest.load(out)
    assert [generation.number for generation in held.generations] == list(range(12))
    faults.record(f"four writers of one manifest, {place}", "all commit", "12 generations, each once")
