"""Every planted corruption is caught, in the file where it is, by the sentence that fits."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from report_data import examples, write_data

from shards.__main__ import main
from shards.dataset import location as dataset
from shards.dataset import manifest
from shards.inspection import verify
from shards.records import tfrecord
from shards.records.pretraining import Example


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "data"
    write_data(folder, [examples(i, 2) for i in range(2)])
    return folder


def names(folder, ending=".tfrecord"):
    return sorted(folder.glob(f"*{ending}"))


def flip_a_bit(folder):
    path = names(folder)[0]
    content = bytearray(path.read_bytes())
    content[5000] ^= 4
    path.write_bytes(content)


def cut_short(folder):
    path = names(folder)[0]
    path.write_bytes(path.read_bytes()[:-9])


def lose_a_shard(folder):
    names(folder)[0].unlink()


def exchange_for_a_foreign_one(folder):
    names(folder)[0].write_bytes(tfrecord.frame(b"\x0a\x00"))


def lose_the_index(folder):
    names(folder, ".index")[0].unlink()


def exchange_the_indexes(folder):
    first, second = names(folder, ".index")
    shutil.copy(second, first)


def lose_the_sidecar(folder):
    names(folder, ".stats.json")[0].unlink()


def exchange_the_sidecars(folder):
    first, second = names(folder, ".stats.json")
    shutil.copy(second, first)


def let_the_manifest_lie(folder):
    path = folder / manifest.NAME
    held = json.loads(path.read_text())
    held["generations"][0]["shards"][0]["examples"] = 3
    path.write_text(json.dumps(held))


def leave_a_stray_shard(folder):
    shutil.copy(names(folder)[0], folder / "a-stray.tfrecord")


def exchange_the_vocabulary(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + " ")


FILES = {
    flip_a_bit: "the checksum of the record does not match",
    cut_short: "as in the manifest",
    lose_a_shard: "the shard is missing",
    exchange_for_a_foreign_one: "not a pretraining record",
    lose_the_index: "the index is missing",
    exchange_the_indexes: "the index does not list the records of its shard",
    lose_the_sidecar: "the statistics are missing",
    exchange_the_sidecars: "the statistics are those of another shard",
    let_the_manifest_lie: "2 records can be read instead of 3 as in the manifest",
    leave_a_stray_shard: "the shard is not in the manifest",
    exchange_the_vocabulary: "the vocabulary is not the one in the manifest",
}


def found(folder):
    return [finding for report in verify.verify(dataset.open_data(str(folder))) for finding in report.findings]


def test_a_sound_data_set_has_no_findings(sound, capsys):
    assert found(sound) == []
    assert main(["verify", str(sound), "--processes", "2"]) == 0
    assert "2 shards, 4 examples" in capsys.readouterr().out


@pytest.mark.parametrize("damage", FILES, ids=lambda damage: damage.__name__)
def test_damaged_files_are_named(sound, tmp_path, damage, capsys, faults):
    folder = tmp_path / "data"
    shutil.copytree(sound, folder)
    damage(folder)
    findings = found(folder)
    assert any(FILES[damage] in finding.problem for finding in findings), findings
    untouched = names(folder)[-1].name
    assert not any(untouched in finding.file for finding in findings), findings
    assert main(["verify", str(folder), "--processes", "1"]) == 1
    assert FILES[damage] in capsys.readouterr().out
    faults.record(f"shards: {damage.__name__.replace('_', ' ')}", "verify exit 1, named", findings[0].problem[:60])


def changed(example: Example, **changes) -> Example:
    """The example with another second segment."""
    first, second, *rest = example.segments
    segment = dataclasses.replace(second.segment, **changes)
    return Example([first, dataclasses.replace(second, segment=segment), *rest])


CONTENTS = {
    "c01: the image is not an image": {"image": b"no picture"},
    "c01: the image is 64x40 instead of 640x40": {"width": 640},
    "c01: the playback speed is 4, not 1, 2 or 3": {"speed": 4},
    "is not 5 s at speed 1": {"end": 11.5},
    "c01: the magic number is -1.0": {"magic": -1.0},
}


@pytest.mark.parametrize("sentence", CONTENTS)
def test_wrong_contents_of_a_record_are_named(sentence):
    (example,) = examples(0, 1)
    assert verify.check_record(example.serialize(), None) == []
    problems = verify.check_record(changed(example, **CONTENTS[sentence]).serialize(), None)
    assert any(sentence in problem for problem in problems), problems


def test_a_special_token_in_the_text_is_named(tmp_path):
    (example,) = examples(0, 1)
    first, *rest = example.segments
    tokens = first.segment.tokens.copy()
    tokens[0] = 3
    segment = dataclasses.replace(first.segment, tokens=tokens)
    write_data(tmp_path / "data", [[Example([dataclasses.replace(first, segment=segment), *rest])]])
    assert any("c00: the text holds the special token 3" in f.problem for f in found(tmp_path / "data"))


def test_one_damaged_shard_does_not_hide_the_others(sound, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(sound, folder)
    cut_short(folder)
    main(["verify", str(folder), "--processes", "1"])
    assert "3 examples" in capsys.readouterr().out


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(dataset.UsageError, match="contains no shards"):
        dataset.open_data(str(Path(tmp_path)))
