"""Data folders in a bucket, read as one by a pattern, and merged."""

import itertools
from pathlib import Path

from shards.__main__ import main
from shards.dataset import location as dataset
from shards.reader import PretrainingReader, ReaderConfig
from shards.storage import filesystem
from tests.reader_data import write_data

SMALL = ReaderConfig(
    segments=4, groups=2, grid=(2, 3), random_text_sequences=0, text_length=40, sequence_length=96, encode_meta=True
)


def test_a_pattern_of_folders_in_a_bucket_is_one_data_set(bucket, tmp_path):
    for number in range(2):
        local = Path(write_data(tmp_path / f"data-{number}", [2, 1], seed=number))
        for path in local.iterdir():
            filesystem.write_bytes(f"{bucket}/in/data-{number}/{path.name}", path.read_bytes())
    shards = [f"{bucket}/in/data-{n}/train-g0000-{i:05d}of00002.tfrecord" for n in range(2) for i in range(2)]
    assert filesystem.matching(f"{bucket}/i*/data-?/*.tfrecord") == shards
    assert dataset.open_data(f"{bucket}/in/data-*").shards == shards
    assert dataset.open_data(f"{bucket}/in/data-[01]/*.tfrecord").shards == shards
    assert main(["merge", f"{bucket}/all", f"{bucket}/in/data-*"]) == 0
    assert dataset.open_data(f"{bucket}/all").shards == shards
    batches = [
        [batch["youtube_id"].tolist() for batch in itertools.islice(PretrainingReader(data, SMALL, 3, seed=1), 2)]
        for data in (f"{bucket}/all", f"{bucket}/in/data-*", f"{tmp_path}/data-*")
    ]
    assert batches[0] == batches[1] == batches[2]
