"""Several data folders are read, counted, checked and shown as one, by a merged manifest, a list or a pattern."""

import dataclasses
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_data import SEGMENTS, examples, write_data

from shards.__main__ import main
from shards.command_line import run_command
from shards.dataset import generation_sums, generations, ledger, manifest, merging
from shards.dataset import location as dataset
from shards.dataset.ledger import Entry
from shards.dataset.manifest import Generation, Manifest, Shard
from shards.dataset.merging import MergeError
from shards.inspection import scanning, stats, verify
from shards.reader import PretrainingReader, ReaderConfig
from shards.storage import filesystem
from shards.storage.errors import UserError
from tests import reader_data

SMALL = ReaderConfig(
    segments=4, groups=2, grid=(2, 3), random_text_sequences=0, text_length=40, sequence_length=96, encode_meta=True
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two folders whose shards have the same names, and `all`, merged of both."""
    place = tmp_path_factory.mktemp("merging")
    write_data(place / "data-1", [examples(1, 2), examples(2, 2)])
    write_data(place / "data-2", [examples(3, 3), examples(4, 1)])
    assert main(["merge", f"{place}/all", f"{place}/data-1", f"{place}/data-2"]) == 0
    return place


def every_way(root):
    return [f"{root}/all", f"{root}/data-1,{root}/data-2", f"{root}/data-*", f"{root}/all/manifest.json"]


def test_every_way_names_the_same_shards_in_the_same_order(root):
    for data in every_way(root):
        opened = dataset.open_data(data)
        assert [Path(path).resolve() for path in opened.shards] == sorted(root.glob("data-*/*.tfrecord"))
        assert list(opened.names.values()) == [
            f"{folder:04d}/train-g0000-{shard:05d}of00002.tfrecord" for folder in range(2) for shard in range(2)
        ]
        assert [opened.claims[path].examples for path in opened.shards] == [2, 2, 3, 1]


def test_shards_without_a_manifest_may_have_the_same_names_too(root, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(next((root / "data-1").glob("*.tfrecord")), tmp_path / folder / "x.tfrecord")
    for data in (f"{tmp_path}/*/x.tfrecord", f"{tmp_path}/a/x.tfrecord,{tmp_path}/b", f"{tmp_path}/a,{tmp_path}/b"):
        opened = dataset.open_data(data)
        assert opened.manifest is None
        assert list(opened.names.values()) == ["0000/x.tfrecord", "0001/x.tfrecord"]
    assert list(dataset.open_data(f"{tmp_path}/a").names.values()) == ["x.tfrecord"]


def test_nothing_is_copied_and_all_can_be_moved_together(root, tmp_path):
    copied = tmp_path / "moved"
    shutil.copytree(root, copied)
    assert sorted(path.name for path in (copied / "all").iterdir()) == ["manifest.json", "tokenizer.json"]
    assert [path for path in dataset.open_data(f"{copied}/all").shards if not Path(path).exists()] == []
    assert manifest.load(f"{copied}/all").folders() == ["../data-1", "../data-2"]
    assert main(["card", f"{copied}/all"]) == 0
    assert "| 0 of ../data-2 | train |" in (copied / "all" / "CARD.md").read_text()


def test_the_statistics_are_the_sum_and_name_shards_by_folder(root, capsys):
    parts = [stats.summarize(dataset.open_data(f"{root}/data-{i}")) for i in (1, 2)]
    printed = []
    for data in every_way(root):
        opened = dataset.open_data(data)
        found = stats.sums_of(opened)
        assert {shard for places in found.worst.values() for _, shard, _ in places} <= set(opened.names.values())
        again, problems = scanning.scan(opened)
        assert problems == []
        assert again.add(stats.items_of(opened)).to_json() == found.to_json()
        assert main(["stats", data, "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert all(one == printed[0] for one in printed)
    assert printed[0]["counts"]["examples"] == sum(part.counts["examples"] for part in parts) == 8
    assert printed[0]["outcomes"]["rejected"] == {"no-captions": 2, "too-long": 2}
    assert printed[0]["languages"] == {"en": 16}


def test_the_report_and_one_example_come_from_the_right_folder(root, tmp_path, capsys):
    for number, data in enumerate(every_way(root)):
        out = tmp_path / str(number)
        assert main(["report", data, "--out", str(out)]) == 0
        content = json.loads((out / "index.html").read_text().split('id="content">')[1].split("</script>")[0])
        assert [row[:2] for row in content["shards"]] == [
            [f"{folder:04d}/train-g0000-{shard:05d}of00002.tfrecord", count]
            for (folder, shard), count in zip(itertools.product(range(2), range(2)), (2, 2, 3, 1), strict=True)
        ]
        assert len(content["gallery"]) == 8
        assert content["problems"] == []
        capsys.readouterr()
        assert main(["show", data, "--video", "3x2______00"]) == 0
        assert "record 2 of" in capsys.readouterr().out
        assert main(["show", data, "--example", "7"]) == 0
        assert "4x0" in capsys.readouterr().out
        assert run_command(lambda data=data: main(["show", data, "--example", "8"])) == 2


def test_damage_is_named_in_its_own_folder(root, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(root, folder)
    broken = sorted((folder / "data-2").glob("*.tfrecord"))[0]
    broken.write_bytes(broken.read_bytes()[:-9])
    stray = folder / "data-1" / "train-g0001-00000of00001.tfrecord"
    stray.write_bytes(b"")
    for data in every_way(folder):
        opened = dataset.open_data(data)
        findings = [finding for report in verify.verify(opened) for finding in report.findings]
        files = {Path(finding.file).resolve() for finding in findings}
        assert {path.with_suffix("") for path in files} == {broken.with_suffix(""), stray.with_suffix("")}
        assert main(["verify", data, "--processes", "1"]) == 1
    for data in every_way(root):
        assert main(["verify", data, "--processes", "1"]) == 0


def test_the_exports_of_two_folders_do_not_meet(root, tmp_path):
    assert main(["export", f"{root}/all", "--to", "webdataset", "--out", f"{tmp_path}/out"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{folder:04d}-train-g0000-{shard:05d}of00002.tar" for folder in range(2) for shard in range(2)
    ]


def test_the_reader_reads_two_folders_as_one_and_continues(tmp_path):
    """The stream does not depend on how the folders are named or on where they are."""
    for number, counts in enumerate(([5, 3], [4])):
        reader_data.write_data(tmp_path / "here" / f"data-{number}", counts, seed=number)
    assert main(["merge", f"{tmp_path}/here/all", f"{tmp_path}/here/data-*"]) == 0
    shutil.copytree(tmp_path / "here", tmp_path / "there")

    def batches(data, count, state=None):
        reader = PretrainingReader(data, SMALL, 3, seed=1)
        if state:
            reader.restore(state)
        return list(itertools.islice(reader, count)), reader.state()

    expected, _ = batches(f"{tmp_path}/here/all", 8)
    videos = {bytes(row.tolist()).decode() for batch in expected[:4] for row in batch["youtube_id"]}
    assert len(videos) == 12
    for data in every_way(tmp_path / "there")[:1] + [f"{tmp_path}/there/data-*"]:
        begun, state = batches(data, 3)
        others = f"{tmp_path}/here/data-0,{tmp_path}/here/data-1"
        rest, _ = batches(others, 5, json.loads(json.dumps(state)))
        for ours, theirs in zip(begun + rest, expected, strict=True):
            np.testing.assert_array_equal(ours["youtube_id"], theirs["youtube_id"])
            np.testing.assert_array_equal(ours["images"], theirs["images"])


def change(folder, **changes):
    held = manifest.load(str(folder))
    manifest.save(str(folder), dataclasses.replace(held, **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"segments_per_example": 8}, f"has segments per example 8 and .*data-1' {SEGMENTS}; such folders cannot be"),
        ({"tokenizer": "ab" * 32}, r"has the vocabulary with the digest abababababab\.\.\. and "),
        (
            {"config": "other"},
            "has the config with the digest other and .*data-1' config; such folders cannot be merged",
        ),
    ],
)
def test_folders_that_disagree_are_named_with_both_values(root, tmp_path, changes, sentence):
    folder = tmp_path / "copy"
    shutil.copytree(root, folder)
    change(folder / "data-2", **changes)
    with pytest.raises(MergeError, match=f"data-2' {sentence}"):
        dataset.open_data(f"{folder}/data-*")
    before = (folder / "all" / "manifest.json").read_bytes()
    assert run_command(lambda: main(["merge", f"{folder}/all", f"{folder}/data-1", f"{folder}/data-2"])) == 1
    assert (folder / "all" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ("merge {0}/new {0}/data-1 {0}/all", 1, "is named twice"),
        ("merge {0}/new {0}/data-1 {0}/../{1}/data-1", 1, "is named twice"),
        ("merge {0}/data-1 {0}/data-2", 1, "has its own shards"),
        ("merge {0}/new {0}/nothing", 2, "there is no file or folder"),
        ("merge {0}/new {0}/nothing*", 2, "is not a data folder"),
        ("merge gs://bucket/new {0}/data-1", 2, "merge into a folder on this machine"),
        ("stats {0}/data-1,{0}/nothing", 2, "nothing'; DATA needs one that exists"),
        ("stats {0}/data-1,{0}/data-2/train-g0000-00000of00002.tfrecord", 2, "mixes data folders"),
        ("stats {0}/data-* --split val", 2, "has no split 'val'; it has train"),
        ("card {0}/data-*", 2, "a card describes one folder"),
        ("remove {0}/all --ids v1", 1, "was merged from ../data-1, ../data-2; remove the videos from these folders"),
        ("remove {0}/data-* --ids v1", 2, "one folder at a time"),
    ],
)
def test_what_cannot_be_one_data_set_is_a_sentence(root, arguments, status, sentence, capsys, monkeypatch):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    words = arguments.format(root, root.name).split()
    assert run_command(lambda: main(words)) == status
    assert sentence in capsys.readouterr().err
    assert not (root / "new" / "manifest.json").exists()


def held(split, number, remainder, took=()):
    return Generation(number, split, 1, 4, [], took=list(took), remainder=remainder, ledger=1)


def test_each_folder_keeps_its_numbers_and_what_waits_in_it(tmp_path):
    one = Manifest(4, "c", "t", [held("train", 0, [["a", 0, 1]]), held("train", 1, [["b", 0, 2]], took=[0])])
    other = Manifest(4, "c", "t", [held("train", 0, [["c", 0, 3]])])
    merged = merging.merge([("/one", one), ("/other", other)])
    assert [(g.folder, g.number) for g in merged.waiting("train")] == [("/one", 1), ("/other", 0)]
    assert merging.merge([("/", merged), ("/third", other)]).folders() == ["/one", "/other", "/third"]
    assert Manifest.from_json(merged.to_json()) == merged
    assert ledger.parts_of("/all", merged.generations[2]) == ["/other/ledger/train-g0000-00000of00001.jsonl"]
    assert manifest.generation_stats_path("/all", merged.generations[1]) == "/one/train-g0001.stats.json"
    with pytest.raises(UserError, match="merged from /one, /other; add videos to one of these folders"):
        generations.waiting_runs(merged, "train")


def test_removals_of_every_folder_count(root, tmp_path):
    """A generation with a ledger counts its own items; those taken out later are in the folder's list of removals."""
    folder = tmp_path / "copy"
    shutil.copytree(root, folder)
    for number in (1, 2):
        data = f"{folder}/data-{number}"
        (generation,) = manifest.load(data).generations
        change(folder / f"data-{number}", generations=[dataclasses.replace(generation, ledger=1)])
        opened = dataset.open_data(data)
        found = generation_sums.read_generation(data, generation)
        found.add(stats.Sums.of_items([Entry(f"v{number}", "extracted", "done")]))
        Path(manifest.generation_stats_path(data, generation)).write_text(found.to_json())
        taken = Entry(f"v{number}", "withdrawn", "failed-final", earlier="done/extracted")
        filesystem.write_bytes(ledger.removals_path(data), ledger.line(taken) + b"\n")
        assert stats.summarize(opened).outcomes["failed-final"] == {"withdrawn": 1}
    merging.write(f"{folder}/all", [f"{folder}/data-1", f"{folder}/data-2"])
    outcomes = stats.summarize(dataset.open_data(f"{folder}/all")).outcomes
    assert outcomes["failed-final"] == {"withdrawn": 2}
    assert outcomes["done"] == {"extracted": 0}


@pytest.mark.parametrize("folder", [3, None, ["x"]])
def test_a_folder_that_is_not_text_is_refused(tmp_path, folder):
    values = json.loads(Manifest(4, "c", "t", [Generation(0, "train", 1, 4, [Shard("s", 1, 1, "")])]).to_json())
    values["generations"][0]["folder"] = folder
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(manifest.ManifestError, match="not text"):
        manifest.load(str(tmp_path))


def test_relative_folders_are_seen_from_where_the_command_runs(root, monkeypatch):
    monkeypatch.chdir(root)
    opened = dataset.open_data("data-1,data-2")
    assert opened.shards == [os.fspath(path) for path in sorted(root.glob("data-*/*.tfrecord"))]
    assert all(filesystem.exists(path) for path in dataset.open_data("all").shards)
