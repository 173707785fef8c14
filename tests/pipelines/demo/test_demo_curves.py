"""The picture of a run: every curve is in it, and folders without one are refused."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines.demo import curves
from shards.command_line import run_command
from train.metrics.accuracy import OBJECTIVES


def lines():
    for step in range(1, 101):
        yield {"step": step, "loss": 12 / step} | dict.fromkeys(OBJECTIVES, 4 / step)
        if step % 25 == 0:
            names = [f"{scope}/{name}" for scope in ("accuracy", "accuracy_within_video") for name in OBJECTIVES]
            line = {f"val/{name}": step / 100 for name in names}
            yield {"step": step} | line | {f"val/{n.replace('accuracy', 'chance')}": 0.1 for n in names}


def test_the_command_draws_a_picture_of_three_diagrams(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    out = tmp_path / "figures" / "curves.png"
    assert run_command(lambda: curves.main([str(tmp_path), "--out", str(out)])) == 0
    with Image.open(out) as picture:
        assert picture.size == (1500, 400)
    for axes in curves.draw(list(lines())).axes:
        drawn = {line.get_label() for line in axes.lines if len(line.get_xdata()) > 2}
        assert drawn == set(OBJECTIVES)


def test_accuracies_are_drawn_as_multiples_of_chance():
    found = curves.points(list(lines()), f"val/accuracy/{OBJECTIVES[0]}", 1)
    assert np.allclose(found, [[25, 2.5], [50, 5], [75, 7.5], [100, 10]])


def test_training_curves_are_averaged():
    found = curves.points([{"step": s, "a": float(s)} for s in range(1, 5)], "a", 2)
    assert found.tolist() == [[1.5, 1.5], [3.5, 3.5]]


@pytest.mark.parametrize("content", [None, '{"step": 1, "val/loss": 2.0}\n'])
def test_a_folder_without_losses_is_refused(tmp_path, content, capsys):
    if content:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert run_command(lambda: curves.main([str(tmp_path), "--out", str(tmp_path / "c.png")])) == 2
    assert "has no metrics.jsonl with losses" in capsys.readouterr().err
