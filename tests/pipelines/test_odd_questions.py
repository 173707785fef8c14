"""Question jobs over odd files: one line never ends a job, most of them rejected do, and children die alone."""

import json
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
from PIL import Image

from ingest.questions.preparation import ChoicesPreparation
from pipelines.questions.preparers import ChoicesPreparer
from pipelines.questions.sandbox import SandboxedPreparer
from pipelines.runner.limits import Limits
from shards.dataset import manifest
from shards.dataset.ledger import Ledger
from shards.reading.source import Source
from shards.records.choices import parse_record
from shards.records.vcr import parse_record as parse_vcr
from shards.storage.errors import UserError
from shards.tokenizer import load_tokenizer

CASES = Path(__file__).parent.parent / "fixtures" / "cases"
IN_PROCESS = ("--direct_num_workers=1", "--direct_running_mode=in_memory")


@pytest.fixture
def prepare(run, published_tokenizer, tmp_path):
    """Run a command of questions into `tmp_path / "out"`."""

    def prepare(task, data, *more, flags=IN_PROCESS):
        common = ("--data", data, "--out", tmp_path / "out", "--tokenizer", published_tokenizer)
        return run(f"pipelines.{task}", *common, *more, *flags)

    return prepare


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def records(out, split="train"):
    source = Source(str(out), split)
    return [source.read(shard, i) for shard, count in enumerate(source.counts) for i in range(count)]


def endings(out):
    return {name: entry.outcome for name, entry in Ledger(str(out)).entries().items()}


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def lines_about(picture, count, **changes):
    line = {"image": picture, "question": "Which?", "answers": ["red", "blue"], "label": 0}
    return [line | changes for _ in range(count)]


@pytest.mark.parametrize(
    ("case", "endings_expected"),
    [
        ("half-an-emoji", {"train-0": "prepared", "train-1": "prepared", "train-2": "prepared"}),
        ("data-address-as-image", {"train-0": "prepared", "train-1": "image-missing", "train-2": "prepared"}),
    ],
)
def test_one_line_ends_only_itself(prepare, out, case, endings_expected):
    ran = prepare("choices", CASES / case / "choices.jsonl", "--shards", "1")
    assert ran.status == 0, ran.err
    assert endings(out) == endings_expected
    assert len(records(out)) == list(endings_expected.values()).count("prepared")


def test_the_number_of_options_is_that_of_most_lines(prepare, out, tmp_path):
    ran = prepare("choices", CASES / "odd-first-line" / "choices.jsonl", "--shards", "2")
    assert ran.status == 0, ran.err
    assert "4 options per question, as in 40 of 41 lines; lines with another number are rejected: 1" in ran.err
    assert len(records(out)) == 40
    shutil.rmtree(out)
    ran = prepare("choices", CASES / "odd-first-line" / "choices.jsonl", "--shards", "2", "--options", "2")
    assert ran.status == 1
    assert (
        "error: 40 of 41 questions of the split 'train' were rejected: 40 bad-line; the prepared questions" in ran.err
    )
    assert [len(parse_record(payload, sound=False).options) for payload in records(out)] == [2]


def test_a_text_among_tokens_is_used_as_written(prepare, out, golden, published_tokenizer, tmp_path):
    folder = shutil.copytree(golden / "finetune" / "vcr1", tmp_path / "vcr1")
    lines = (CASES / "plain-text-among-tokens" / "train.jsonl").read_text().splitlines()
    odd = json.loads(lines[1]) | {"annot_id": "train-1"}
    write_lines(folder / "train.jsonl", [json.loads(lines[0]), odd])
    ran = prepare("vcr", folder)
    assert ran.status == 0, ran.err
    option = parse_vcr(records(out)[1]).answer.options[0]
    assert load_tokenizer(published_tokenizer).decode(option.tolist()).strip() == "yes he is"


def test_an_id_that_repeats_is_named(prepare, out, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.jpg")
    lines = [*lines_about("a.jpg", 1, id="b"), *lines_about("a.jpg", 2), *lines_about("a.jpg", 1, id="b")]
    lines += lines_about("a.jpg", 1, id="train-1")
    ran = prepare("choices", write_lines(tmp_path / "q.jsonl", lines))
    assert ran.status == 0, ran.err
    assert "2 bad-line, for example train-3: line 0 has the same id; the ids of a split must differ" in ran.err
    assert [parse_record(payload, sound=False).id for payload in records(out)] == ["b", "train-1", "train-2"]


def test_paths_stay_in_the_folder_of_media(prepare, out, tmp_path):
    for folder in ("lists", "media"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "media" / "a.jpg")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "private.jpg")
    absolute = str(tmp_path / "media" / "a.jpg")
    lines = [line for path in ("a.jpg", absolute, "../private.jpg") for line in lines_about(path, 1)]
    data = write_lines(tmp_path / "lists" / "q.jsonl", lines)
    ran = prepare("choices", data, "--media", tmp_path / "media")
    assert ran.status == 0, ran.err
    assert endings(out) == {"train-0": "prepared", "train-1": "prepared", "train-2": "bad-line"}
    assert "'../private.jpg', which is not in the folder" in ran.err


def test_what_was_mostly_rejected_is_tried_again(prepare, out, tmp_path):
    """The pictures come later; then the same command prepares the rest, and what there was stays as it was."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.jpg")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "v.jpg")
    names = ("a.jpg", *(f"{i}.jpg" for i in range(5)))
    data = write_lines(tmp_path / "q.jsonl", [line for name in names for line in lines_about(name, 1)])
    assert prepare("choices", write_lines(tmp_path / "v.jsonl", lines_about("v.jpg", 2)), "--split", "val").status == 0
    for _ in range(2):
        ran = prepare("choices", data, "--shards", "3")
        assert ran.status == 1
        assert "5 of 6 questions of the split 'train' were rejected: 5 image-missing; the prepared questions" in ran.err
        assert len(records(out)) == 1
    for i in range(4):
        Image.new("RGB", (32, 32), "blue").save(tmp_path / f"{i}.jpg")
    ran = prepare("choices", data, "--shards", "3")
    assert ran.status == 0, ran.err
    assert "most lines of the split 'train' were rejected before; they are retried" in ran.err
    assert len(records(out)) == 5
    assert len(records(out, "val")) == 2
    ran = prepare("choices", data, "--shards", "3")
    assert (ran.status, "finished; nothing to do" in ran.err) == (0, True)
    assert [(g.number, g.split, g.videos) for g in manifest.load(str(out)).generations] == [
        (0, "val", 2),
        (1, "train", 5),
    ]


def test_a_list_that_was_repaired_replaces_the_rejected_one(prepare, out, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.jpg")
    data = write_lines(tmp_path / "q.jsonl", [*lines_about("a.jpg", 1), *lines_about("b.jpg", 4)])
    assert prepare("choices", data).status == 1
    write_lines(data, lines_about("a.jpg", 3))
    ran = prepare("choices", data)
    assert ran.status == 0, ran.err
    shards = {shard.name for shard in manifest.load(str(out)).shards("train")}
    assert len(records(out)) == 3
    assert {path.name for path in out.glob("*.tfrecord")} == shards


def test_nothing_prepared_is_tried_again_too(prepare, out, tmp_path):
    data = write_lines(tmp_path / "q.jsonl", lines_about("a.jpg", 2))
    ran = prepare("choices", data)
    assert (ran.status, "no question could be prepared: 2 image-missing" in ran.err) == (1, True)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.jpg")
    ran = prepare("choices", data)
    assert ran.status == 0, ran.err
    assert len(records(out)) == 2


@pytest.fixture
def own(tmp_path, published_tokenizer):
    """What prepares own lines, of which one names a picture of 81 million pixels."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.jpg")
    Image.new("L", (9000, 9000)).save(tmp_path / "large.png")
    return ChoicesPreparer(str(tmp_path), str(published_tokenizer), True, ChoicesPreparation())


def sound_line(picture="a.jpg"):
    return json.dumps(lines_about(picture, 1)[0]).encode()


def test_a_child_that_dies_or_hangs_takes_one_question_with_it(own):
    sandboxed = SandboxedPreparer(own, Limits(seconds=20))
    try:
        assert sandboxed(sound_line(), "train-0").outcome.value == "prepared"
        child = sandboxed._child.process
        assert sandboxed(sound_line(), "train-1").outcome.value == "prepared"
        assert sandboxed._child.process is child
        os.kill(child.pid, signal.SIGKILL)
        ended = sandboxed(sound_line(), "train-2")
        assert (ended.outcome.value, ended.outcome.kind.value) == ("crashed", "failed-final")
        assert "SIGKILL" in ended.detail
        assert sandboxed(sound_line(), "train-3").outcome.value == "prepared"
        os.kill(sandboxed._child.process.pid, signal.SIGSTOP)
        sandboxed.limits = Limits(seconds=1)
        ended = sandboxed(sound_line(), "train-4")
        assert (ended.outcome.value, ended.detail) == ("timed-out", "not prepared after 1 s")
        sandboxed.limits = Limits(seconds=20)
        assert sandboxed(sound_line(), "train-5").outcome.value == "prepared"
        last = sandboxed._child.process.pid
    finally:
        sandboxed.close()
    assert not psutil.pid_exists(last)


def test_a_picture_that_needs_too_much_memory_is_named(own):
    sandboxed = SandboxedPreparer(own, Limits(seconds=60, memory_bytes=256 << 20))
    try:
        ended = sandboxed(sound_line("large.png"), "train-0")
        assert (ended.outcome.value, ended.detail) == ("out-of-memory", "more than 256 MiB")
        assert sandboxed(sound_line(), "train-1").outcome.value == "prepared"
    finally:
        sandboxed.close()


def test_a_vocabulary_that_is_missing_is_not_a_question_s_fault(own, tmp_path):
    lost = ChoicesPreparer(own.folder, str(tmp_path / "none.json"), True, own.config)
    sandboxed = SandboxedPreparer(lost, Limits(seconds=60))
    try:
        with pytest.raises(UserError, match=r"none\.json"):
            sandboxed(sound_line(), "train-0")
    finally:
        sandboxed.close()


def test_a_job_goes_on_after_questions_that_ran_out_of_memory(prepare, out, own, tmp_path):
    data = write_lines(tmp_path / "q.jsonl", [line for n in ("a", "large") for line in lines_about(f"{n}.jpg", 1)])
    (tmp_path / "large.png").rename(tmp_path / "large.jpg")
    more = lines_about("a.jpg", 2)
    data.write_text(data.read_text() + "".join(json.dumps(line) + "\n" for line in more))
    ran = prepare("choices", data, "--shards", "1", "--decode-memory-mb", "256", flags=("--direct_num_workers=2",))
    assert ran.status == 0, ran.err
    assert list(endings(out).values()).count("prepared") == 3
    assert "1 out-of-memory, for example train-1: more than 256 MiB" in ran.err
