"""Prompts, options and batches as people have them: marks, line ends, clips of two seconds, and rows tried again."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from pipelines.inference.options import check_options, check_prompts, listed_options
from pipelines.inference.questions import read_questions
from shards.storage.errors import UsageError
from shards.tokens import SPECIAL_TOKENS

CASES = Path(__file__).parent.parent / "fixtures" / "cases"
SHORT = CASES / "silent-two-seconds" / "two.mp4"
PROMPT = "I see <|MASK|>"


@pytest.fixture(scope="module")
def weights(make_weights, tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights"), "i see a red dog or a blue one made of steel")


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ((CASES / "options-with-odd-line-ends" / "bom.txt").read_bytes(), ["red", "blue"]),
        ((CASES / "options-with-odd-line-ends" / "u2028.txt").read_bytes(), ["made of\u2028steel", "blue"]),
        (b"red\r\nblue\rgreen\n\n", ["red", "blue", "green"]),
        ("a\u2029b\nc\x85d\ne\x0bf\x0cg\x1ch".encode(), ["a\u2029b", "c\x85d", "e\x0bf\x0cg\x1ch"]),
        ("rot\nblau".encode("utf-16"), ["rot", "blau"]),
        ("gr\u00fcn".encode("cp1252"), ["gr\u00fcn"]),
    ],
)
def test_an_options_file_is_split_at_line_ends_alone(tmp_path, content, options):
    (tmp_path / "o.txt").write_bytes(content)
    assert listed_options("", str(tmp_path / "o.txt")) == options


@pytest.mark.parametrize("token", [t for t in SPECIAL_TOKENS if t != "<|MASK|>"])
def test_marks_of_the_model_are_not_text(token):
    with pytest.raises(UsageError, match="contains the special token"):
        check_prompts([f"a {token} <|MASK|>"])
    with pytest.raises(UsageError, match="contains the special token"):
        check_options(["red", f"a{token}"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["<|MASK|>"], "contains the special token <|MASK|>"),
        (["a", " "], "is empty"),
        (["a", "a"], "given twice"),
        (["\ud83d"], "unpaired surrogate"),
    ],
)
def test_options_that_are_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence.replace("|", r"\|")):
        check_options(options)


def test_line_breaks_of_prompts_are_kept(tmp_path):
    prompt = "first\nsecond\u2028third <|MASK|>"
    check_prompts([prompt])
    with (tmp_path / "q.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerows([["video", "prompt", "options"], ["a.mp4", prompt, "red|blue"]])
    (row,) = read_questions(str(tmp_path / "q.csv"), ())
    assert row.prompt == prompt


@pytest.mark.parametrize("token", ["<|AUDIOSPAN|>", "<|PAD|>"])
def test_a_mark_in_a_prompt_ends_in_one_sentence(run, weights, token):
    more = ("--options", "red,blue", "--checkpoint", weights)
    ran = run("pipelines.ask", SHORT, "--prompt", f"a {token} <|MASK|>", *more)
    assert (ran.status, ran.err) == (
        2,
        f"error: prompt 'a {token} <|MASK|>' contains the special token {token}; remove it\n",
    )


def test_short_clips_are_padded_and_equal_options_named(run, weights):
    more = ("--options", "red,Red,blue", "--checkpoint", weights, "--json")
    ran = run("pipelines.ask", SHORT, "--prompt", "I\nsee <|MASK|>", *more)
    assert ran.status == 0, ran.err
    assert "note: only 2.0 s long: one segment, filled up with silence" in ran.err
    assert "cannot distinguish options with the same tokens: 'Red' like 'red'" in ran.err
    (document,) = json.loads(ran.out)
    assert document["prompt"] == "I\nsee <|MASK|>"
    assert sum(option["probability"] for option in document["answers"][0]["options"]) == pytest.approx(1, abs=1e-4)


@pytest.fixture
def batch(run, weights, tmp_path):
    """Run a batch over rows into `tmp_path / "a.jsonl"`."""

    def batch(rows, *more):
        with (tmp_path / "q.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["video", "prompt", "options"], *rows])
        return run(
            "pipelines.ask_batch", tmp_path / "q.csv", "--out", tmp_path / "a.jsonl", "--checkpoint", weights, *more
        )

    return batch


def lines(folder):
    return [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]


def test_rows_that_failed_are_tried_again(batch, tmp_path):
    video = str(tmp_path / "later.mp4")
    rows = [
        (str(SHORT), PROMPT, "red|blue"),
        (video, PROMPT, "red|blue"),
        (video, "a <|AUDIOSPAN|> <|MASK|>", "red|blue"),
    ]
    ran = batch([*rows, rows[0]])
    assert ran.status == 1
    assert "1 answered now, 0 before, 2 failed: see 'error'" in ran.err
    assert ["error" in line for line in lines(tmp_path)] == [False, True, True]
    ran = batch(rows)
    assert (ran.status, "0 answered now, 1 before, 2 failed" in ran.err) == (1, True)
    assert len(lines(tmp_path)) == 3
    shutil.copy(SHORT, video)
    ran = batch(rows)
    assert (ran.status, "1 answered now, 1 before, 1 failed" in ran.err) == (1, True)
    assert "contains the special token <|AUDIOSPAN|>" in lines(tmp_path)[-1]["error"]
    ran = batch(rows[:2])
    assert (ran.status, "0 answered now, 2 before, 0 failed" in ran.err) == (0, True)
    assert "keeps 1 lines of other questions" in ran.err


def test_one_row_never_ends_a_batch(batch, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    rows = [
        ("x" * 300, PROMPT, "red|blue"),
        (str(tmp_path / "text.mp4"), PROMPT, "red|blue"),
        (str(tmp_path), PROMPT, "red|blue"),
        (str(SHORT), PROMPT, "red|red"),
        (str(SHORT), "see " * 2000 + "<|MASK|>", "red|blue"),
        (str(SHORT), PROMPT, "red|Red|blue"),
    ]
    ran = batch(rows)
    assert (ran.status, "1 answered now, 0 before, 5 failed" in ran.err) == (1, True), ran.err
    assert all(line["error"] for line in lines(tmp_path)[:-1])
    assert "'Red' like 'red'" in lines(tmp_path)[-1]["note"]


def test_an_output_of_another_kind_or_model_is_refused(batch, tmp_path):
    rows = [(str(SHORT), PROMPT, "red|blue")]
    (tmp_path / "a.jsonl").write_text("my notes\n")
    ran = batch(rows)
    assert (ran.status, "is not an output of this command" in ran.err) == (2, True)
    assert (tmp_path / "a.jsonl").read_text() == "my notes\n"
    (tmp_path / "a.jsonl").unlink()
    assert batch(rows).status == 0
    ran = batch(rows, "--use", "frames")
    assert (ran.status, "was created with --use auto, not frames; choose another --out" in ran.err) == (2, True)


def test_an_output_that_was_cut_off_is_repaired(batch, tmp_path):
    rows = [(str(SHORT), PROMPT, "red|blue"), (str(SHORT), "a <|MASK|>", "red|blue")]
    assert batch(rows).status == 0
    whole = (tmp_path / "a.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for end in (5, first + 30):
        (tmp_path / "a.jsonl").write_bytes(whole[:end])
        assert batch(rows).status == 0
        assert {line["key"] for line in lines(tmp_path)} == {json.loads(line)["key"] for line in whole.splitlines()}
