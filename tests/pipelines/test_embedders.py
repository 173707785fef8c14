"""Embedders by name, and the job with the visual filters on."""

import json
import shutil

import numpy as np
import pytest

from ingest import similarity
from ingest.ffmpeg import ffmpeg_path
from model.checkpoints import export, write_grid
from model.config import TINY
from model.filters import mobilenet
from pipelines.demo import footage
from pipelines.extraction import embedders
from pipelines.preprocessing import options
from shards.dataset import location as dataset
from shards.dataset.ledger import Ledger
from shards.inspection.stats import summarize
from shards.storage.errors import UsageError
from tests.model import torch_writer

PICTURES = [footage.frame("lively", 0, shot) for shot in range(3)]


def test_the_published_filter_by_its_file(tmp_path, monkeypatch, golden):
    path = tmp_path / "filter.pth.tar"
    torch_writer.save(path, torch_writer.weights(), monkeypatch)
    look = embedders.load(str(path))([*torch_writer.thumbnails(), PICTURES[0]])
    assert look.features.shape == (3, 1280)
    assert look.objects.shape == (3, 81)
    with np.load(golden.parent / "mobilenet" / "outputs.npz") as golden:
        assert np.abs(look.features[:2] - golden["features"]).max() < 1e-4


def test_our_own_vision_encoder(tmp_path):
    import jax

    from model.reserve import parameter_shapes

    keys = iter(jax.random.split(jax.random.key(0), 10_000))
    params = jax.tree.map(lambda s: 0.05 * jax.random.normal(next(keys), s.shape), parameter_shapes(TINY))
    export(params, tmp_path / "checkpoint")
    write_grid(str(tmp_path), TINY)
    look = embedders.load(f"reserve={tmp_path / 'checkpoint'}")(PICTURES)
    assert look.features.shape == (3, TINY.hidden_size)
    assert np.allclose(np.linalg.norm(look.features, axis=1), 1, atol=1e-2)
    assert look.objects is None


def write_onnx(path, height, width):
    """A network that gives the mean of each colour, as an ONNX file written field by field."""

    def field(number, value):
        if isinstance(value, int):
            return bytes([number << 3, value])
        data = value.encode() if isinstance(value, str) else value
        assert len(data) < 128
        return bytes([number << 3 | 2, len(data)]) + data

    def tensor(name, *sizes):
        shape = b"".join(field(1, field(2, s) if isinstance(s, str) else field(1, s)) for s in sizes)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    node = field(1, "x") + field(2, "y") + field(4, "GlobalAveragePool")
    graph = field(1, node) + field(2, "g")
    graph += field(11, tensor("x", "n", 3, height, width)) + field(12, tensor("y", "n", 3, 1, 1))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))


def test_an_onnx_network(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra [asr]")
    write_onnx(tmp_path / "mean.onnx", 45, 80)
    look = embedders.load(str(tmp_path / "mean.onnx"))(PICTURES)
    expected = [picture.mean(axis=(0, 1)) / 255 for picture in PICTURES]
    assert np.allclose(look.features, expected, atol=5e-3)
    assert look.objects is None


def factory():
    return similarity.perceptual


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("colours", "is not one of perceptual, none"),
        ("absent.pth.tar", "there is no file"),
        ("absent.onnx", "there is no file"),
        ("no.such.module:factory", "cannot be loaded"),
        (f"{__name__}:absent", "cannot be loaded"),
        ("reserve=absent", "absent"),
    ],
)
def test_a_wrong_name_is_one_sentence(name, sentence):
    with pytest.raises(embedders.EmbedderError, match=sentence):
        embedders.load(name)


def test_files_that_are_no_networks(tmp_path):
    for name, error in (("a.onnx", embedders.EmbedderError), ("a.pth.tar", mobilenet.MobileNetError)):
        (tmp_path / name).write_bytes(b"these are no weights")
        with pytest.raises(error):
            embedders.load(str(tmp_path / name))


def test_an_entry_point_and_none():
    assert embedders.load(f"{__name__}:factory") is similarity.perceptual
    assert embedders.load("none") is None


def test_objects_need_an_embedder_that_knows_them():
    with pytest.raises(UsageError, match="need an --embedder that detects objects"):
        options.parse(["--videos", "v", "--out", "o", "--min-objects", "0.9"])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, corpus):
    """Two videos of the corpus, and one of them with a still picture in the place of its own."""
    import subprocess

    folder = tmp_path_factory.mktemp("mixed")
    names = sorted(path.stem for path in (corpus / "train").glob("*.mp4"))[:2]
    for name in names:
        for path in (corpus / "train").glob(f"{name}.*"):
            shutil.copy(path, folder / path.name)
    for path in folder.glob(f"{names[0]}.*"):
        if path.suffix == ".vtt":
            shutil.copy(path, folder / path.name.replace(names[0], "still"))
    command = [ffmpeg_path(), "-nostdin", "-v", "error", "-f", "lavfi", "-i", "smptehdbars=size=320x180:rate=2"]
    command += ["-i", str(folder / f"{names[0]}.mp4"), "-map", "0:v", "-map", "1:a", "-t", "40", "-c:a", "copy"]
    command += [str(folder / "still.mp4")]
    subprocess.run(command, check=True, timeout=120)
    return folder


def test_a_still_picture_is_rejected_with_its_score(mixed, tmp_path, run, quick):
    ran = run.preprocess("--videos", mixed, "--out", tmp_path / "out", *quick, "--max-similarity", "0.97")
    assert ran.status == 0, ran.err
    entries = Ledger(str(tmp_path / "out")).entries()
    assert entries["still"].outcome == "too-alike"
    assert entries["still"].scores["similarity"] > 0.99
    others = [entry for name, entry in entries.items() if name != "still"]
    assert all(entry.outcome == "extracted" and entry.scores["similarity"] < 0.97 for entry in others)


def test_groups_that_look_alike_are_left_out_and_counted(mixed, tmp_path, run, quick):
    out = tmp_path / "out"
    flags = ["--max-group-similarity", "0.97", "--keep-segments"]
    ran = run.preprocess("--videos", mixed, "--out", out, *quick, *flags)
    assert ran.status == 0, ran.err
    summary = summarize(dataset.open_data(str(out)))
    judged = [group for path in out.glob("*of*.stats.json") for group in json.loads(path.read_text())["judged"]]
    assert {run[0] for group in judged if group["outcome"] == "too-alike" for run in group["runs"]} >= {"still"}
    assert all((group["similarity"] > 0.97) == (group["outcome"] == "too-alike") for group in judged)
    assert summary.histograms["groups"]["kept"] == summary.counts["examples"] > 0
    assert sum(summary.histograms["groups"].values()) == len(judged) > summary.counts["examples"]
    assert run("shards", "verify", out).status == 0
    shard = sorted(out.glob("*.tfrecord"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    assert run("shards", "verify", out, "--repair").status == 0
    assert shard.read_bytes() == whole
