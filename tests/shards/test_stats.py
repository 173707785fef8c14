import json
from pathlib import Path

import numpy as np
import pytest
from report_data import examples, write_data

from shards.__main__ import main
from shards.command_line import run_command
from shards.dataset import duplicates, generation_sums
from shards.dataset import location as dataset
from shards.dataset.manifest import ManifestError, Shard, generation_stats_path, stats_path
from shards.dataset.sidecar import Collector
from shards.dataset.sums import Sums
from shards.inspection import outliers, scanning, stats
from shards.inspection.funnel import Step, steps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("stats") / "data", [examples(i, 3) for i in range(2)])


def test_the_numbers_are_those_of_the_examples(data):
    summary = stats.summarize(dataset.open_data(data))
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
    opened = dataset.open_data(data)
    again, problems = scanning.scan(opened, processes=2)
    assert again.add(stats.items_of(opened)).to_json() == stats.sums_of(opened).to_json()
    assert problems == []


def test_only_near_duplicates_of_other_videos_count():
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
    def total(silent):
        found = Sums()
        for i, number in enumerate(silent):
            counts = {"examples": 1, "segments": 100, "tokens": 2000 + i, "words": 1500, "near_black": 0}
            held = Collector().result() | counts | {"silent": number, "seconds": 500.0}
            found.add(Sums.of_shard(f"s{i}", 10_000 + i, held))
        return found

    assert outliers.outliers(total([1] * 20)) == []
    (found,) = outliers.outliers(total([1] * 7 + [60] + [1] * 12))
    assert (found.shard, found.quantity, found.value, found.median) == ("s7", "silent share", 0.6, 0.01)


def test_the_funnel_loses_each_item_once(data):
    assert steps(stats.summarize(dataset.open_data(data))) == [
        Step("listed", 15, 0),
        Step("downloaded", 14, 1),
        Step("not no-captions", 13, 1),
        Step("not too-long", 12, 1),
        Step("extracted", 12, 0),
    ]


def test_the_command_prints_tables_and_json(data, capsys):
    assert main(["stats", data]) == 0
    printed = capsys.readouterr().out
    for word in ("words per minute", "Music", "CC-BY", "too-long", "near duplicates", "segments waiting"):
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
        stats.summarize(dataset.open_data(data))


def test_sidecars_of_earlier_versions_are_read(data):
    held = dataset.open_data(data).manifest.shards()[0]
    content = json.loads(Path(f"{data}/{stats_path(held.name)}").read_text())
    new = Sums.of_shard("new", 1, content)
    for name in ("digests", "hashes", "worst", "words_per_minute", "categories", "licences"):
        del content[name]
    old = Sums.of_shard("old", 1, content)
    assert old.duplicates is None
    assert old.counts == new.counts


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
    assert "this is not a TFRecord" in told.out.replace("\n", " ")


def test_a_missing_sidecar_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"a\.stats\.json' is missing"):
        generation_sums.read_sidecar(str(tmp_path), Shard("a.tfrecord", 1, 1, ""))


def test_a_video_in_two_shards_is_one_video(tmp_path):
    held = examples(0, 2)
    data = write_data(tmp_path / "data", [held[:1], held])
    assert stats.summarize(dataset.open_data(data)).videos == 6
    ledger = tmp_path / "data" / "ledger" / "main.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:4]))
    assert stats.summarize(dataset.open_data(data)).videos == 4


def test_a_generation_with_statistics_needs_no_sidecar(tmp_path):
    data = write_data(tmp_path / "data", [examples(i, 2) for i in range(2)])
    opened = dataset.open_data(data)
    before = stats.sums_of(opened).to_json()
    (generation,) = opened.manifest.generations
    path = Path(generation_stats_path(data, generation))
    path.write_text(generation_sums.read_generation(data, generation).to_json())
    for shard in generation.shards:
        Path(data, stats_path(shard.name)).unlink()
    assert stats.sums_of(opened).to_json() == before
    path.write_text(path.read_text()[:-50])
    with pytest.raises(ManifestError, match=r"'.*train-g0000\.stats\.json' are damaged"):
        stats.sums_of(opened)
