import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from report_data import SEGMENTS, examples, write_data

from shards.__main__ import main
from shards.command_line import run_command

COUNT = 3


@pytest.fixture(scope="module")
def made():
    return examples(0, COUNT)


@pytest.fixture(scope="module")
def data(tmp_path_factory, made):
    return write_data(tmp_path_factory.mktemp("export") / "data", [made])


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_equal_shards_give_equal_files(data, tmp_path, form):
    for name in ("a", "b"):
        assert main(["export", data, "--to", form, "--out", str(tmp_path / name)]) == 0
    (first,), (second,) = ((tmp_path / name).iterdir() for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_tar_holds_every_segment(data, made, tmp_path, capsys):
    assert main(["export", data, "--to", "webdataset", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.tar")
    assert str(path) in capsys.readouterr().out
    with tarfile.open(path) as tar:
        content = {entry.name: tar.extractfile(entry).read() for entry in tar}
    keys = sorted({name.partition(".")[0] for name in content})
    assert len(keys) == COUNT
    for key, example in zip(keys, made, strict=True):
        about = json.loads(content[f"{key}.json"])
        for i, placed in enumerate(example.segments):
            assert content[f"{key}.{i:02d}.jpg"] == placed.segment.image
            assert content[f"{key}.{i:02d}.spectrogram.jpg"] == placed.segment.spectrogram
            assert about["segments"][i]["tokens"] == placed.segment.tokens.tolist()
            assert about["segments"][i]["title"] == placed.text.title


def test_a_table_holds_every_segment(data, made, tmp_path):
    assert main(["export", data, "--to", "parquet", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.parquet")
    file = pq.ParquetFile(path)
    assert file.num_row_groups == COUNT
    rows = file.read().to_pylist()
    assert len(rows) == COUNT * SEGMENTS
    for row, placed in zip(rows, (p for e in made for p in e.segments), strict=True):
        assert row["image"] == placed.segment.image
        assert row["spectrogram"] == placed.segment.spectrogram
        assert row["tokens"] == placed.segment.tokens.tolist()
        assert (row["video_id"], row["speed"], row["run"]) == (placed.text.video_id, placed.segment.speed, placed.run)


def test_a_damaged_shard_leaves_no_file(made, tmp_path, capsys):
    folder = write_data(tmp_path / "data", [made])
    (shard,) = Path(folder).glob("*.tfrecord")
    shard.write_bytes(shard.read_bytes()[:-7])
    out = tmp_path / "out"
    assert run_command(lambda: main(["export", folder, "--to", "webdataset", "--out", str(out)])) == 1
    assert shard.name in capsys.readouterr().err
    assert list(out.iterdir()) == []
