import json
from pathlib import Path

import numpy as np
import pytest
from report_data import examples, write_data

from shards import dataset, duplicates
from shards.__main__ import main
from shards.errors import run_command
from shards.inspection import outliers, scanning, stats
from shards.inspection.funnel import Step, steps
from shards.manifest import ManifestError, Shard, stats_path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("stats") / "data", [examples(i, 3) for i in range(2)])


def read(data):
    opened = dataset.open_data(data)
    return opened, list(stats.read_sidecars(data, opened.manifest))


def test_the_numbers_are_those_of_the_examples(data):
    opened, shards = read(data)
    summary = stats.of_shards(opened, shards)
    assert summary.shards == 2
    assert summary.videos == 12
    assert summary.counts == {
        "examples": 6,
        "segments": 24,
        "tokens": 54,
        "words": summary.counts["words"],
        "silent": 6,
        "near_black": 6,
    }
    assert summary.histograms["tokens_per_segment"] == {"0": 6, "2": 6, "3": 6, "4": 6}
    assert summary.percentile("tokens_per_segment", 0.5) == 2
    assert summary.histograms["speeds"] == {"1": 12, "2": 6, "3": 6}
    assert summary.histograms["categories"] == {"Music": 24}
    assert summary.histograms["licences"] == {"CC-BY": 24}
    assert summary.languages == {"en": 12}
    assert summary.outcomes["rejected"] == {"too-long": 1, "no-captions": 1}
    # The black frame is the same in all examples; it looks like nothing, so it is no look-alike.
    assert summary.duplicates == duplicates.Duplicates(24, 5, 0)
    assert sum(summary.histograms["words_per_minute"].values()) == 24


def test_scanning_the_shards_gives_the_same_as_their_sidecars(data):
    opened, shards = read(data)
    again = list(scanning.scan(opened, processes=2))
    for name in ("name", "bytes", "counts", "seconds", "histograms", "videos", "lengths", "worst", "problem"):
        assert [getattr(s, name) for s in again] == [getattr(s, name) for s in shards], name
    for ours, theirs in zip(again, shards, strict=True):
        np.testing.assert_array_equal(ours.digests, theirs.digests)
        np.testing.assert_array_equal(ours.hashes, theirs.hashes)


def test_look_alikes_of_other_videos_are_found_and_those_of_the_same_are_not():
    rng = np.random.default_rng(0)
    hashes = rng.integers(1, 2**63, 1000, dtype=np.uint64)
    hashes[500] = hashes[10] ^ np.uint64(0b101)
    hashes[501] = hashes[20] ^ np.uint64(1 << 63 | 1 << 40 | 1 << 5)
    hashes[502] = hashes[30] ^ np.uint64(0b1111)
    hashes[503] = hashes[40]
    videos = np.arange(1000)
    videos[503] = videos[40]
    assert np.flatnonzero(duplicates.near(hashes, videos)).tolist() == [500, 501]


def test_an_unusual_shard_stands_out():
    def shard(i, silent):
        counts = {"examples": 1, "segments": 100, "tokens": 2000 + i, "words": 1500, "silent": silent, "near_black": 0}
        return stats.ShardSums(f"s{i}", 10_000 + i, counts, 500.0)

    shards = [shard(i, 1) for i in range(20)]
    assert outliers.outliers(shards) == []
    shards[7] = shard(7, 60)
    (found,) = outliers.outliers(shards)
    assert (found.shard, found.quantity, found.value, found.median) == ("s7", "silent share", 0.6, 0.01)


def test_the_funnel_loses_each_item_once(data):
    opened, shards = read(data)
    assert steps(stats.of_shards(opened, shards)) == [
        Step("listed", 15, 0),
        Step("downloaded", 14, 1),
        Step("not no-captions", 13, 1),
        Step("not too-long", 12, 1),
        Step("extracted", 12, 0),
    ]


def test_the_command_prints_tables_and_json(data, capsys):
    assert main(["stats", data]) == 0
    printed = capsys.readouterr().out
    for word in ("words per minute", "Music", "CC-BY", "too-long", "look-alikes", "segments waiting"):
        assert word in printed
    assert main(["stats", data, "--json"]) == 0
    from_sidecars = json.loads(capsys.readouterr().out)
    assert main(["stats", data, "--json", "--recompute"]) == 0
    assert json.loads(capsys.readouterr().out) == from_sidecars
    assert from_sidecars["duplicates"] == {"frames": 24, "exact": 5, "near": 0}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"examples": "many"}', "\x00"])
def test_a_damaged_sidecar_is_named(tmp_path, content):
    data = write_data(tmp_path / "data", [examples(0, 1)])
    (sidecar,) = (tmp_path / "data").glob("*.stats.json")
    sidecar.write_text(content)
    with pytest.raises(ManifestError, match=f"{sidecar.name}.* is damaged"):
        stats.summarize(data, dataset.open_data(data).manifest)


def test_sidecars_of_earlier_versions_are_read(data):
    _, (held, _) = read(data)
    content = json.loads(Path(f"{data}/{stats_path(held.name)}").read_text())
    for name in ("digests", "hashes", "worst", "words_per_minute", "categories", "licences"):
        del content[name]
    summary = stats.total([stats.ShardSums.of("old", 1, content)])
    assert summary.duplicates is None
    assert summary.counts == held.counts


def test_what_cannot_be_summed_is_a_sentence(tmp_path, capsys):
    def status(*arguments):
        return run_command(lambda: main(["stats", *map(str, arguments)])), capsys.readouterr()

    (tmp_path / "empty").mkdir()
    assert status(tmp_path / "empty")[0] == 2
    foreign = tmp_path / "foreign.tfrecord"
    foreign.write_bytes(b"no record at all")
    ended, told = status(foreign)
    assert ended == 2
    assert "--recompute" in told.err
    ended, told = status(foreign, "--recompute")
    assert ended == 1
    assert "this is no TFRecord" in told.out.replace("\n", " ")


def test_a_missing_sidecar_is_named(tmp_path):
    held = stats.read_sidecar(str(tmp_path), Shard("a.tfrecord", 1, 1, ""))
    assert "is missing" in held.problem
