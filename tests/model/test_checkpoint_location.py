"""What a name of weights stands for: work folders, exports, files, addresses and published names."""

import pytest

from model.checkpoint_location import Location, locate
from model.checkpoints import CheckpointError


@pytest.fixture
def runs(tmp_path):
    """A pretraining run with two exports, a finetuning run, a run without either, and weights on their own."""
    for path in ("pre/export/ckpt_9", "pre/export/ckpt_10", "pre/checkpoints/10/state", "fine/best/ckpt_4"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for path in ("alone/ckpt_3", "young/checkpoints/1/state"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    for run in ("pre", "fine", "young"):
        (tmp_path / run / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "path", "run"),
    [
        ("pre", "pre/export/ckpt_10", "pre"),
        ("pre/", "pre/export/ckpt_10", "pre"),
        ("pre/export", "pre/export/ckpt_10", "pre"),
        ("pre/export/ckpt_9", "pre/export/ckpt_9", "pre"),
        ("fine", "fine/best/ckpt_4", "fine"),
        ("fine/best/ckpt_4", "fine/best/ckpt_4", "fine"),
        ("alone", "alone/ckpt_3", None),
        ("alone/ckpt_3", "alone/ckpt_3", None),
    ],
)
def test_paths(runs, given, path, run):
    expected = Location(str(runs / path), None if run is None else str(runs / run))
    assert locate(f"{runs}/{given}") == expected


@pytest.mark.parametrize("name", ["base", "large", "vcr_finetune_base", "https://host/weights/ckpt_1"])
def test_names_and_addresses_stand_for_themselves(name):
    assert locate(name) == Location(name)


@pytest.mark.parametrize("given", ["young", "pre/checkpoints", "pre/checkpoints/10"])
def test_states_to_continue_from_are_not_weights(runs, given):
    with pytest.raises(CheckpointError, match=r"no exported weights yet|not exported weights"):
        locate(str(runs / given))


def test_a_path_from_within_the_work_folder(runs, monkeypatch):
    monkeypatch.chdir(runs / "pre")
    assert locate("export") == Location("export/ckpt_10", ".")
    assert locate(".") == Location("./export/ckpt_10", ".")
