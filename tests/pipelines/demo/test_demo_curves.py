"""The picture of a run: its size, that every curve is in it, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines.demo import curves
from shards.errors import run_command
from train.accuracy import OBJECTIVES


def lines():
    for step in range(1, 101):
        yield {"step": step, "loss": 12 / step} | dict.fromkeys(OBJECTIVES, 4 / step)
        if step % 25 == 0:
            names = [f"{scope}/{name}" for scope in ("accuracy", "accuracy_within_video") for name in OBJECTIVES]
            line = {f"val/{name}": step / 100 for name in names}
            yield {"step": step} | line | {f"val/{n.replace('accuracy', 'chance')}": 0.1 for n in names}


def test_every_panel_has_every_curve(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    out = tmp_path / "figures" / "curves.png"
    assert run_command(lambda: curves.main([str(tmp_path), "--out", str(out)])) == 0
    width, height = curves.PANEL
    picture = np.asarray(Image.open(out))
    assert picture.shape == (height, 3 * width, 3)
    for panel in np.split(picture, 3, axis=1):
        # The last curve drawn lies over the others, which are the same here; their names stand below.
        drawn = {tuple(pixel) for pixel in panel.reshape(-1, 3)}
        assert {(31, 95, 180), (214, 96, 30), (40, 140, 70)} <= drawn


def test_accuracies_are_drawn_as_multiples_of_chance():
    curve = curves._curve(list(lines()), "x", f"val/accuracy/{OBJECTIVES[0]}", 0, 1)
    assert curve.points.tolist() == [[25, 2.5], [50, 5], [75, 7.5], [100, 10]]


def test_training_curves_are_averaged():
    curve = curves._curve([{"step": s, "a": float(s)} for s in range(1, 5)], "a", "a", 0, 2)
    assert curve.points.tolist() == [[1.5, 1.5], [3.5, 3.5]]


@pytest.mark.parametrize("content", [None, '{"step": 1, "val/loss": 2.0}\n'])
def test_a_folder_without_losses_is_refused(tmp_path, content, capsys):
    if content:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert run_command(lambda: curves.main([str(tmp_path), "--out", str(tmp_path / "c.png")])) == 2
    assert "holds no metrics.jsonl with losses" in capsys.readouterr().err
