"""The config.json of a data folder is data: nothing that it names is imported or opened."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.config import VideoConfig
from pipelines.preprocessing import folder_config
from shards.dataset.manifest import Manifest, save
from shards.storage.errors import UsageError, UserError

ROOT = Path(__file__).parents[2]
CASE = ROOT / "tests" / "fixtures" / "cases" / "config-names-a-module" / "config.json"


@pytest.fixture
def data(tmp_path):
    """A data folder without videos, whose config names a module that is beside it."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(CASE, folder)
    save(str(folder), Manifest(4, "config", "tokenizer"))
    (tmp_path / "notes.py").write_text("open('imported', 'w')\nfrom ingest.similarity import perceptual\n")
    return folder


def test_a_module_that_a_folder_names_is_not_imported(data, tmp_path):
    command = [sys.executable, "-m", "pipelines.refilter", "data", "--set", "max_similarity=None", "--out", "new"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: the folder was created with the embedder 'notes:go'")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["notes:go", "reserve=https://example.org/ckpt", "reserve=base", "a.onnx", "0" * 64])
def test_a_stored_embedder_must_be_given_again(name):
    with pytest.raises(UsageError, match="give it with --embedder"):
        folder_config.embedder(name, None)
    assert folder_config.embedder(name, name) == name
    with pytest.raises(UsageError, match="not the one"):
        folder_config.embedder(name, "other:factory")


def test_an_embedder_of_no_file_needs_no_flag():
    assert folder_config.embedder("perceptual", None) == "perceptual"
    assert folder_config.embedder("none", None) == "none"


def test_a_file_is_the_same_embedder_by_its_digest(tmp_path):
    weights = tmp_path / "weights.onnx"
    weights.write_bytes(b"weights")
    stored = VideoConfig(embedder=str(weights)).embedder_digest
    assert len(stored) == 64
    assert folder_config.embedder(stored, str(weights)) == str(weights)
    weights.write_bytes(b"others")
    with pytest.raises(UsageError, match="not the one"):
        folder_config.embedder(stored, str(weights))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"video": []}, "'video' is"),
        ({"groups": []}, "not an object"),
        ({"groups": {"max_similarity": "0.5", "min_objects": None, "probability": 1}}, "not a number"),
        ({"groups": {"max_similarity": 0.5, "min_objects": None, "probability": None}}, "from 0 to 1"),
        ({"segments_per_example": 10**30}, "segments_per_example"),
        ({"segments_per_example": True}, "segments_per_example"),
        ({"video": {"filters": {"colour": 1}, "language": "en", "seed": 0, "embedder": "none"}}, "unknown rule"),
        ({"video": {"filters": {"max_seconds": 10**400}, "language": "en", "seed": 0, "embedder": "none"}}, "number"),
        ({"video": {"filters": {}, "language": None, "seed": 0, "embedder": "none"}}, "'language'"),
        ({"video": {"filters": {}, "language": "en", "seed": 0.5, "embedder": "none"}}, "'seed'"),
    ],
)
def test_values_of_wrong_types_are_one_sentence(data, change, sentence):
    path = data / "config.json"
    path.write_text(json.dumps(json.loads(CASE.read_text()) | change))
    with pytest.raises(UserError, match=sentence) as raised:
        folder_config.read(str(data))
    assert "restore it" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b"null", CASE.read_bytes()[:300]])
def test_a_config_that_is_cut_is_one_sentence(data, content):
    (data / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        folder_config.read(str(data))
