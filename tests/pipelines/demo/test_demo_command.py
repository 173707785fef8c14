"""The demo from end to end, with a few videos and as few steps of training as the stages allow."""

import json

import pytest

from train.metrics import MetricsLog


def test_a_stage_shorter_than_its_warm_up_is_refused_before_anything_is_made(run, tmp_path):
    ended = run("pipelines.demo", "--out", tmp_path / "demo", "--hearing-steps", "10")
    assert ended.status == 2
    assert ended.err.startswith("error: --hearing-steps is 10")
    assert not (tmp_path / "demo").exists()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_the_whole_chain_runs_and_leaves_its_figures(run, tmp_path):
    out = tmp_path / "demo"
    arguments = ("--out", out, "--videos", "4", "--steps", "2", "--hearing-steps", "50")
    arguments += ("--evaluations", "1", "--questions", "16")
    ended = run("pipelines.demo", *arguments, timeout=500)
    assert ended.status == 0, ended.err
    assert "done in" in ended.err
    for stage, steps in (("run", 2), ("hearing", 50)):
        lines = MetricsLog(str(out / stage / "metrics.jsonl")).lines()
        assert [line["step"] for line in lines] == [steps, steps]
        assert lines[1]["val/chance/imgs_to_audio"] > 0
        assert (out / f"{stage}-curves.png").stat().st_size > 10_000
    settings = json.loads((out / "hearing" / "config.json").read_text())
    assert settings["input"]["neighbour_text_rate"] == 0.2
    assert settings["optimizer"]["total_steps"] == 50
    answered = json.loads((out / "questions.json").read_text())
    assert set(answered) == {"nothing", "frames", "sound"}
    assert set(answered["nothing"]) == {"colour", "shape", "motion", "sound", "all"}
    # Sixteen stretches of one video, each asked for the two or three attributes that its speech does not name.
    assert 28 <= answered["nothing"]["all"]["asked"] <= 48
    for name in ("from-the-demo", "from-nothing"):
        judged = MetricsLog(str(out / "choices" / name / "evaluations.jsonl")).lines()
        assert 40 <= judged[-1]["val/questions"] <= 300
