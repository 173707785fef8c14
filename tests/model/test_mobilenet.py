"""The object filter's network: torch's outputs, torch's files, and files that are none."""

import contextlib
import importlib.util
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.filters import mobilenet, torch_file
from tests.model import torch_writer

PLACE = Path(__file__).parent.parent / "golden" / "mobilenet"


@pytest.fixture(scope="module")
def published_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "filter.pth.tar"
    with pytest.MonkeyPatch.context() as monkeypatch:
        torch_writer.save(path, torch_writer.weights(), monkeypatch)
    return path


def outputs(path):
    variables = mobilenet.load(path)
    return jax.jit(mobilenet.MobileNetV2().apply)(variables, mobilenet.normalise(torch_writer.thumbnails()))


def test_outputs_are_those_of_torch(published_file, parity):
    features, objects = outputs(published_file)
    with np.load(PLACE / "outputs.npz") as golden:
        for name, found in (("features", features), ("objects", objects)):
            error = np.abs(np.asarray(found) - golden[name]).max()
            parity.record("mobilenet/outputs.npz", f"{name} of two pictures", error)
            assert error < 1e-4


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is no part of this project's environment")
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_the_torch_at_hand(tmp_path, zipped):
    import torch

    state = {f"module.{name}": torch.from_numpy(value) for name, value in torch_writer.weights().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=zipped)
    features, _ = outputs(tmp_path / "w.pth.tar")
    with np.load(PLACE / "outputs.npz") as golden:
        assert np.abs(np.asarray(features) - golden["features"]).max() < 1e-4


@pytest.mark.parametrize("name", ["small_zip", "small_legacy"])
def test_both_forms_of_files_that_torch_wrote(name):
    """Written by torch 2.15: a transposed view, a view with an offset, a scalar, an empty tensor, booleans."""
    held = torch_file.load(PLACE / f"{name}.pth.tar")
    assert (held["epoch"], held["arch"]) == (3, "mobilenet")
    tensors = {key.removeprefix("module."): value for key, value in held["state_dict"].items()}
    assert np.array_equal(tensors["a"], np.arange(12, dtype=np.float32).reshape(3, 4).T)
    assert np.array_equal(tensors["b"], np.array([2, 3, 4], np.float16))
    assert tensors["c"].shape == ()
    assert tensors["c"] == 7
    assert tensors["d"].shape == (0, 3)
    assert tensors["e"].tolist() == [True, False]


def test_a_file_cannot_run_anything(tmp_path):
    class Harm:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'harm')!r}, 'w')",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1) + pickle.dumps(Harm()))
    with pytest.raises(torch_file.TorchFileError):
        torch_file.load(tmp_path / "w.pth")
    assert not (tmp_path / "harm").exists()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["small_zip", "small_legacy"]), st.integers(0, 3000), st.integers(0, 255), st.booleans())
def test_damaged_files_give_typed_errors(tmp_path_factory, name, place, value, cut):
    data = bytearray((PLACE / f"{name}.pth.tar").read_bytes())
    place %= len(data)
    data = data[:place] if cut else data[:place] + bytes([value]) + data[place + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(data)
    with contextlib.suppress(torch_file.TorchFileError):
        torch_file.load(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("features.7.conv.0.0.weight"), "holds no weight 'features.7.conv.0.0.weight'"),
        (lambda s: s.update({"features.0.0.weight": np.zeros((32, 3, 5, 5), np.float32)}), "has the shape"),
        (lambda s: s.update({"classifier.1.bias": np.full(81, np.nan, np.float32)}), "not finite"),
    ],
)
def test_other_weights_are_named(tmp_path, monkeypatch, change, sentence):
    state = torch_writer.weights()
    change(state)
    torch_writer.save(tmp_path / "w.pth.tar", state, monkeypatch)
    with pytest.raises(mobilenet.MobileNetError, match=sentence):
        mobilenet.load(tmp_path / "w.pth.tar")


def test_another_number_of_classes_is_refused(tmp_path, monkeypatch):
    torch_writer.save(tmp_path / "w.pth.tar", torch_writer.weights(classes=1000), monkeypatch)
    with pytest.raises(mobilenet.MobileNetError, match=r"'classifier.1.bias' of .* \(1000,\) instead of \(81,\)"):
        mobilenet.load(tmp_path / "w.pth.tar")
