"""The demo's commands in order, what it says before and after them, and the whole of it at the smallest sizes."""

import json

import pytest

from pipelines.demo.__main__ import BestEvaluation, Options, commands, comparison, description
from train.metrics.formatting import MetricsLog

SMALL = ("--videos", "4", "--steps", "2", "--evaluations", "1", "--questions", "16", "--epochs", "1")


def value(command, flag):
    return command[command.index(flag) + 1]


def of_module(options, module):
    return [command for command in commands(options) if command[0] == module]


def test_the_commands_come_in_the_order_of_what_they_need():
    modules = [command[0] for command in commands(Options())]
    assert modules == [
        *("pipelines.demo.corpus", "shards", *["pipelines.preprocess"] * 3, *["shards"] * 4),
        *("train.pretrain", "pipelines.demo.curves", "train.evaluate", "pipelines.demo.questions"),
        *(["pipelines.demo.choices", "pipelines.choices"] * 2 + ["train.finetune"] * 2),
    ]
    assert [command[1] for command in commands(Options()) if command[0] == "shards"] == [
        *("train-tokenizer", "stats", "verify", "show", "report")
    ]
    splits = [value(command, "--split") for command in of_module(Options(), "pipelines.preprocess")]
    assert splits == ["train", "val", "questions"]


def test_the_second_stage_starts_from_the_first():
    options = Options(out="d", hearing_steps=60)
    first, second = of_module(options, "train.pretrain")
    assert value(first, "--optimizer.total-steps") == "1000"
    assert value(second, "--init") == "d/run/export"
    assert value(second, "--input.neighbour-text-rate") == "0.2"
    assert value(second, "--optimizer.total-steps") == "60"
    for module in ("train.evaluate", "pipelines.demo.questions"):
        (command,) = of_module(options, module)
        assert value(command, "--checkpoint") == "d/hearing"
    assert [value(command, "--init") for command in of_module(options, "train.finetune")] == ["d/run", "random:tiny"]


def test_the_options_reach_their_commands():
    options = Options(out="d", videos=9, steps=100, final_scale=1.0, evaluations=4, questions=48, epochs=2)
    (corpus,) = of_module(options, "pipelines.demo.corpus")
    (run,) = of_module(options, "train.pretrain")
    assert value(corpus, "--videos") == "9"
    assert (value(run, "--steps"), value(run, "--evaluate-every")) == ("100", "25")
    assert "--optimizer.final-scale" not in run
    assert [value(command, "--questions") for command in of_module(options, "pipelines.demo.choices")] == ["48", "300"]
    assert {value(command, "--epochs") for command in of_module(options, "train.finetune")} == {"2"}


def test_it_says_first_how_long_it_takes_and_what_it_will_show():
    default, longer = (description(Options(steps=steps)) for steps in (1_000, 10_000))
    assert "the demo takes about 4 minutes on two idle cores" in default
    assert "min  pretrain a small model on them for 1,000 steps" in default
    assert "It shows that the loss leaves its plateau" in default
    assert "the demo takes about 13 minutes" in longer


def test_it_says_plainly_whether_pretraining_helped():
    fresh = BestEvaluation(0.2, 300, 1 / 6, 0.23)
    text = comparison(fresh._replace(share=0.5), fresh)
    assert text.endswith("chance 16.7%, the most frequent answer 23.0%: pretraining helps")
    text = comparison(fresh._replace(share=61 / 300), fresh)
    assert "from the demo 20.3% (16.2% to 25.2%), from nothing 20.0%" in text
    assert "pretraining does not show at this length" in text


def test_a_stage_shorter_than_its_warm_up_is_refused(run, tmp_path):
    ended = run("pipelines.demo", "--out", tmp_path / "demo", "--hearing-steps", "10")
    assert ended.status == 2
    assert ended.err.startswith("error: --hearing-steps 10")
    assert not (tmp_path / "demo").exists()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_the_whole_chain_runs_leaves_its_figures_and_continues(run, tmp_path):
    out = tmp_path / "demo"
    ended = run("pipelines.demo", "--out", out, *SMALL, timeout=500)
    assert ended.status == 0, ended.err
    assert "done in" in ended.err
    for noise in ("absl", "oneDNN", "Very slow compile", "Traceback"):
        assert noise not in ended.err
    lines = MetricsLog(str(out / "run" / "metrics.jsonl")).lines()
    assert [line["step"] for line in lines] == [2, 2]
    assert lines[1]["val/chance/imgs_to_audio"] > 0
    assert (out / "run-curves.png").stat().st_size > 10_000
    answered = json.loads((out / "questions.json").read_text())
    assert set(answered) == {"nothing", "frames", "sound"}
    assert set(answered["nothing"]) == {"colour", "shape", "motion", "sound", "all"}
    # Sixteen stretches of one video, each asked for the two or three attributes that its speech does not name.
    assert 28 <= answered["nothing"]["all"]["asked"] <= 48
    for name in ("from-the-demo", "from-nothing"):
        evaluations = MetricsLog(str(out / "choices" / name / "evaluations.jsonl")).lines()
        assert 40 <= evaluations[-1]["val/questions"] <= 300
    continued = run("pipelines.demo", "--out", out, *SMALL, timeout=500)
    assert continued.status == 0, continued.err
    assert "4 of them existed already" in continued.err
    assert continued.err.count("compiling the training step") == 0
    assert MetricsLog(str(out / "run" / "metrics.jsonl")).lines() == lines
