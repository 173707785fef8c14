"""The jobs of questions: official folders to verified shards, own questions, continuing, and what cannot be prepared."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import choices, tvqa, vcr
from pipelines.questions import job as questions
from pipelines.questions import preparers
from shards.command_line import run_command
from shards.dataset import manifest
from shards.dataset.ledger import Ledger
from shards.dataset.location import open_data
from shards.inspection import verify
from shards.reading.source import Source
from shards.records.choices import parse_record
from shards.records.vcr import parse_record as parse_vcr
from shards.storage.errors import UserError

IN_PROCESS = ("--direct_num_workers=1", "--direct_running_mode=in_memory")


@pytest.fixture(scope="module")
def tokenizer(published_tokenizer):
    return str(published_tokenizer)


def run(module, data, out, tokenizer, *more, flags=IN_PROCESS):
    argv = ["--data", str(data), "--out", str(out), "--tokenizer", tokenizer, *more, *flags]
    return run_command(lambda: module.main(argv))


def records(out, split):
    source = Source(str(out), split)
    return [source.read(shard, i) for shard, count in enumerate(source.counts) for i in range(count)]


def problems(out):
    return [finding.problem for report in verify.verify(open_data(str(out))) for finding in report.findings]


@pytest.fixture(scope="module")
def prepared(golden, tokenizer, tmp_path_factory):
    """Both official folders as data folders with all splits."""
    out = tmp_path_factory.mktemp("prepared")
    for module, folder in ((vcr, "vcr1"), (tvqa, "tvqa")):
        for split in ("train", "val", "test"):
            assert run(module, golden / "finetune" / folder, out / folder, tokenizer, "--split", split) == 0
    return out


@pytest.mark.parametrize(
    ("folder", "counts", "slots"),
    [("vcr1", {"train": 2, "val": 1, "test": 4}, 1), ("tvqa", {"train": 4, "val": 4, "test": 1}, 7)],
)
def test_official_folders_become_verified_shards(prepared, folder, counts, slots):
    out = prepared / folder
    held = manifest.load(str(out))
    assert held.splits() == ["train", "val", "test"]
    assert {g.split: g.examples for g in held.generations} == counts
    assert held.segments_per_example == slots
    assert problems(out) == []
    entries = Ledger(str(out)).entries()
    assert {entry.kind for entry in entries.values()} == {"done"}
    assert {name.partition("-")[0] for name in entries} == {"train", "val", "test"}
    assert json.loads((out / "config.json").read_text())["task"] == folder.rstrip("1")


def test_line_i_is_in_shard_i_mod_n(prepared):
    shards = manifest.load(str(prepared / "tvqa")).shards("train")
    assert [shard.name for shard in shards] == [f"train-g0000-{i:05d}of00004.tfrecord" for i in range(4)]
    ids = [parse_record(payload).id for payload in records(prepared / "tvqa", "train")]
    assert ids == [
        f"{n:06d}~{name}"
        for n, name in zip(range(101, 105), [*["s01e01_seg01_clip_00"] * 3, "s02e03_seg02_clip_05"], strict=True)
    ]


def test_a_test_question_of_vcr_is_four_records(prepared):
    found = [parse_vcr(payload) for payload in records(prepared / "vcr1", "test")]
    assert [record.id for record in found] == [f"test-0-qar-conditioned_on_a{i}" for i in range(4)]
    assert {(record.answer.label, record.rationale.label) for record in found} == {(0, 0)}
    assert len({record.rationale.query.tobytes() for record in found}) == 4


def test_only_the_same_command_continues_a_finished_split(golden, prepared, tokenizer, capsys):
    data, out = golden / "finetune" / "vcr1", prepared / "vcr1"
    before = manifest.load(str(out))
    assert run(vcr, data, out, tokenizer, "--split", "train") == 0
    assert "the split 'train' is finished; nothing to do" in capsys.readouterr().err
    assert run(vcr, data, out, tokenizer, "--split", "train", "--limit", "1") == 2
    assert "already has other questions as split 'train'" in capsys.readouterr().err
    assert run(vcr, data, out, tokenizer, "--split", "train", "--no-all-names") == 2
    assert "belongs to a run with preparation" in capsys.readouterr().err
    assert manifest.load(str(out)) == before


@pytest.mark.parametrize(
    ("module", "more", "sentence"),
    [
        (vcr, ("--split", "dev"), "--split 'dev' is not a split of VCR; give one of train, val, test"),
        (tvqa, ("--split", "dev"), "--split 'dev' is not a split of TVQA"),
        (vcr, (), "there is no file"),
        (choices, ("--split", "a-b"), "must be letters and digits"),
        (choices, ("--segments", "9"), "segments is 9; it must be 1 to 7"),
        (vcr, ("--no-such-flag",), "unknown argument '--no-such-flag'"),
    ],
)
def test_bad_usage_is_one_sentence(tmp_path, tokenizer, capsys, module, more, sentence):
    assert run(module, tmp_path / "nothing", tmp_path / "out", tokenizer, *more) == 2
    assert sentence in capsys.readouterr().err


def scene(path, colour):
    Image.new("RGB", (120, 90), colour).save(path)


@pytest.fixture
def own(tmp_path):
    """A person's own questions about pictures, three of which cannot be used."""
    for colour in ("red", "blue"):
        scene(tmp_path / f"{colour}.jpg", colour)
    lines = [
        {"image": "red.jpg", "question": "Which colour?", "answers": ["red", "blue", "green"], "label": 0},
        {"image": "blue.jpg", "question": "Which colour?", "answers": ["red", "blue", "green"], "label": 1, "id": "b"},
        {"image": "none.jpg", "question": "Which colour?", "answers": ["red", "blue", "green"], "label": 1},
        {"image": "red.jpg", "question": "Which colour?", "answers": ["red", "blue"], "label": 1},
        {"image": "red.jpg", "question": "Which colour?", "answers": ["red", "blue", "green"], "label": 3},
    ]
    text = "\n".join([*map(json.dumps, lines), "", "{no json"])
    (tmp_path / "own.jsonl").write_text(text)
    return tmp_path


def test_own_questions_and_what_is_wrong_with_them(own, tokenizer, capsys):
    out = own / "out"
    assert run(choices, own / "own.jsonl", out, tokenizer) == 1
    said = capsys.readouterr().err
    for reason in ("1 image-missing", "2 bad-line", "1 label-out-of-range", "2 questions of the split 'train'"):
        assert reason in said
    assert "error: 4 of 6 questions of the split 'train' were rejected: 2 bad-line, 1 image-missing" in said
    found = [parse_record(payload, 3, sound=False) for payload in records(out, "train")]
    assert [(record.id, record.label) for record in found] == [("train-0", 0), ("b", 1)]
    assert problems(out) == []
    entries = Ledger(str(out)).entries()
    assert sum(entry.kind == "rejected" for entry in entries.values()) == 4


def test_questions_about_a_video_have_pictures_and_sound(golden, tokenizer, tmp_path):
    shutil.copy(golden / "videos" / "gOldVidA_01.mp4", tmp_path / "clip.mp4")
    line = {"video": "clip.mp4", "question": "What?", "answers": ["a", "b"], "label": 1, "subtitle": "pour the water"}
    lines = [line | {"start": 10, "end": 30}, line, line | {"start": 900}, line | {"start": "x"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    assert run(choices, tmp_path / "train.jsonl", out, tokenizer, "--segments", "3", "--sound") == 0
    first, second = (parse_record(payload, 2) for payload in records(out, "train"))
    assert (len(first.segments), len(second.segments)) == (3, 3)
    assert [segment.subtitle.size > 0 for segment in first.segments] == [True, False, False]
    pictures = [np.asarray(Image.open(io.BytesIO(s.image))).astype(int) for s in first.segments]
    assert np.abs(pictures[0] - pictures[2]).mean() > 1
    outcomes = {name: entry.outcome for name, entry in Ledger(str(out)).entries().items()}
    assert outcomes == {"train-0": "prepared", "train-1": "prepared", "train-2": "times-outside", "train-3": "bad-line"}


def test_no_test_question_may_be_missing_and_repairing_continues(golden, tokenizer, tmp_path, capsys):
    data, out = tmp_path / "vcr1", tmp_path / "out"
    shutil.copytree(golden / "finetune" / "vcr1", data)
    (image,) = data.rglob("gOldVidA_01@0.jpg")
    image.rename(image.with_suffix(".away"))
    assert run(vcr, data, out, tokenizer, "--split", "test") == 1
    said = capsys.readouterr().err
    assert "1 image-missing, for example test-0: there is no image" in said
    assert "1 of 1 questions of the split 'test' cannot be prepared, and a leaderboard file needs them all" in said
    assert not (out / "manifest.json").exists()
    image.with_suffix(".away").rename(image)
    assert run(vcr, data, out, tokenizer, "--split", "test") == 0
    assert len(records(out, "test")) == 4


def test_a_stopped_job_continues_with_equal_bytes(prepared, golden, tokenizer, tmp_path):
    """A shard that was written stays; one that was cut off is written again, the same."""
    out = tmp_path / "out"
    shutil.copytree(prepared / "vcr1", out)
    names = [shard.name for shard in manifest.load(str(out)).shards("train")]
    contents = [(out / name).read_bytes() for name in names]
    for split in ("val", "test"):
        for path in out.glob(f"{split}-*"):
            path.unlink()
    (out / "manifest.json").unlink()
    (out / names[1].replace(".tfrecord", ".stats.json")).unlink()
    (out / names[1]).write_bytes(contents[1][:100])
    kept = (out / names[0]).stat().st_mtime_ns
    assert run(vcr, golden / "finetune" / "vcr1", out, tokenizer, "--split", "train") == 0
    assert (out / names[0]).stat().st_mtime_ns == kept
    assert [(out / name).read_bytes() for name in names] == contents


def test_two_processes_write_the_same_bytes(prepared, golden, tokenizer, tmp_path):
    flags = ("--direct_num_workers=2",)
    assert run(tvqa, golden / "finetune" / "tvqa", tmp_path / "out", tokenizer, flags=flags) == 0
    for shard in manifest.load(str(tmp_path / "out")).shards("train"):
        assert (tmp_path / "out" / shard.name).read_bytes() == (prepared / "tvqa" / shard.name).read_bytes()


def test_a_data_set_without_a_usable_question_is_an_error(tmp_path, tokenizer, capsys):
    (tmp_path / "train.jsonl").write_text("[]\n{}\n")
    assert run(choices, tmp_path / "train.jsonl", tmp_path / "out", tokenizer) == 1
    assert "no question could be prepared" in capsys.readouterr().err
    job = questions.Job(str(Path(tmp_path) / "none"), "out", "train", preparers.VcrPreparer("", tokenizer, True, None))
    with pytest.raises(UserError, match="there is no file"):
        questions.prepare(job, [])
