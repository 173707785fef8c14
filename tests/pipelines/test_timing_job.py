"""A timing model is learned again: on one half of the recordings, better on the other."""

import json
import random

import numpy as np
import pytest

from ingest.timing import SHAPES, TimingModel
from pipelines import timing
from pipelines.maintenance.timing_training import PairsError, error, learn, read_pairs
from shards.command_line import run_command
from shards.tokenizer import train_tokenizer

WORDS = ("a", "the", "shape", "Colour", "humming", "is", "triangle", "we", "purple", "don't", "now")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    path.write_text(train_tokenizer([" ".join(WORDS)], 280).to_str())
    return str(path)


def write(path, recordings, seed=0):
    """A recogniser that hears the border before a word late, the more the longer the word is; with noise."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for _ in range(recordings):
            words = draw.choices(WORDS, k=60)
            borders = [0.5]
            for text in words:
                borders.append(borders[-1] + 0.06 * len(text) + draw.uniform(0.1, 0.2))
            heard = [
                at + 0.02 * len(text) + draw.gauss(0, 0.01) for at, text in zip(borders, [*words, ""], strict=True)
            ]
            held = {
                "recognised": [list(word) for word in zip(words, heard, heard[1:], strict=False)],
                "aligned": [list(word) for word in zip(words, borders, borders[1:], strict=False)],
            }
            file.write(json.dumps(held) + "\n")


def test_one_half_teaches_the_other(tmp_path, tokenizer):
    write(tmp_path / "pairs.jsonl", 32)
    recordings = read_pairs(str(tmp_path / "pairs.jsonl"), tokenizer)
    model = learn(recordings[:16], steps=1500, seed=0)
    before, after = error(recordings[16:], None), error(recordings[16:], model)
    assert before > 0.08
    assert after < 0.03
    again = learn(recordings[:16], steps=1500, seed=0)
    assert all(np.array_equal(model.weights[name], again.weights[name]) for name in SHAPES)


def test_the_file_has_the_published_form(tmp_path, tokenizer, capsys, published_timing_model):
    write(tmp_path / "pairs.jsonl", 9)
    arguments = [str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "t.json"), "--tokenizer", tokenizer]
    assert timing.main([*arguments, "--steps", "100"]) == 0
    assert "trained on 540 words of 9 recordings" in capsys.readouterr().err
    ours, published = (json.loads(path.read_text()) for path in (tmp_path / "t.json", published_timing_model))
    assert {name: np.shape(ours[name]) for name in ours} == {name: np.shape(published[name]) for name in ours}
    recordings = read_pairs(str(tmp_path / "pairs.jsonl"), tokenizer)
    assert error(recordings, TimingModel.load(tmp_path / "t.json")) < error(recordings, None)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{oops", "line 1 of .* is not a recording"),
        ('{"recognised": []}', "line 1 of .* is not a recording: KeyError"),
        ('{"recognised": [["a", 0, 1]], "aligned": []}', "has 1 recognised and 0 aligned words"),
        ('{"recognised": [["a", 0, 1]], "aligned": [["a", 0, 1]]}', "fewer than 100 words"),
    ],
)
def test_bad_pairs_are_named(tmp_path, tokenizer, line, sentence):
    (tmp_path / "pairs.jsonl").write_text(line + "\n")
    with pytest.raises(PairsError, match=sentence):
        read_pairs(str(tmp_path / "pairs.jsonl"), tokenizer)


def test_bad_usage_ends_with_2(tmp_path):
    arguments = [str(tmp_path / "absent"), "--out", "t.json", "--steps", "0"]
    assert run_command(lambda: timing.main(arguments)) == 2
