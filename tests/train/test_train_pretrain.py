"""The command: a short run on real shards, its files, its refusals, and the limit of skipped updates."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import serialization

from model import published
from model.checkpoints import export
from shards.command_line import run_command
from shards.storage.errors import UsageError
from tests.reader_data import write_data
from tests.training_runs import losses
from train import evaluate, pretrain
from train.configs.tiny import CONFIG as TINY
from train.loop import in_turn
from train.metrics.formatting import MetricsLog

ROOT = Path(__file__).parent.parent.parent
STEPS = 40
SMALL = (
    *("--adapt-to-data", "--batch-size", "2", "--model.hidden-size", "32"),
    *("--model.context-split-probability", "0"),
    *("--optimizer.total-steps", "100", "--log-every", "1", "--checkpoint-every", "4"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("pretrain") / "data", [5, 4])


def arguments(data, workdir, *more):
    return ["tiny", "--data", str(data), "--workdir", str(workdir), *SMALL, *more]


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A finished run of `STEPS` steps."""
    workdir = tmp_path_factory.mktemp("run")
    assert run_command(lambda: pretrain.main(arguments(data, workdir, "--steps", str(STEPS)))) == 0
    return workdir


def test_a_run_leaves_metrics_checkpoints_and_weights(undisturbed):
    lines = MetricsLog(str(undisturbed / "metrics.jsonl")).lines()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for name in ("loss", "grad_norm", "learning_rate", "accuracy_within_video/stuff_to_span", "scale/text_to_audio"):
        assert all(np.isfinite(line[name]) for line in lines)
    assert all(0 <= line["wait_share"] <= 1 for line in lines)
    stored = json.loads((undisturbed / "config.json").read_text())
    assert (stored["model"]["vocabulary_size"], stored["model"]["segments"]) == (32_768, 4)
    loaded = published.load(undisturbed / "export")
    assert loaded.params["token_encoder"]["Embed_0"]["embedding"].shape == (32_768, 32)


def test_a_continued_run_has_the_same_losses(undisturbed, data, tmp_path, capsys):
    for steps, workers in (("5", "2"), ("7", "0")):
        command = arguments(data, tmp_path, "--steps", steps, "--reader-workers", workers)
        assert run_command(lambda command=command: pretrain.main(command)) == 0
    assert "continuing from step 5" in capsys.readouterr().err
    expected = losses(undisturbed)
    assert losses(tmp_path) == {step: expected[step] for step in range(1, 8)}


def test_init_starts_from_weights(undisturbed, data, tmp_path, capsys):
    weights = str(undisturbed / "export" / f"ckpt_{STEPS}")
    assert run_command(lambda: pretrain.main(arguments(data, tmp_path, "--steps", "1", "--init", weights))) == 0
    err = capsys.readouterr().err
    assert f"starting from the weights {weights} of the run {undisturbed}\n" in err
    assert "compiling the training step" in err


def test_steps_take_the_grids_in_turn_also_after_a_break(data, tmp_path):
    # Of a third grid that no step gets to, nothing is compiled.
    command = arguments(data, tmp_path, "--grids", "4", "4", "2", "6", "6", "2", "--steps", "2")
    assert run_command(lambda: pretrain.main(command)) == 0
    assert list(losses(tmp_path)) == [1, 2]
    assert json.loads((tmp_path / "config.json").read_text())["grids"] == [[4, 4], [2, 6], [6, 2]]
    turn = in_turn([str.upper, str.lower, str.title], 4)
    assert [turn("a word") for _ in range(4)] == ["a word", "A Word", "A WORD", "a word"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--grids", "4", "3"), "grids is (4, 3); it must be (rows, columns), both positive multiples of 2"),
        (("--seed", "5"), "belongs to a run with seed 0, not 5; choose another --workdir"),
        (("--optimizer.learning-rate", "0.5"), "belongs to a run with optimizer.learning_rate 0.001, not 0.5"),
        (("--mesh.data", "3"), "a mesh of data 3, fsdp 1 and tensor 1 does not fit 1 devices"),
        (("--reader-workers", "-1"), "--reader-workers -1 must not be negative"),
        (("--batch-size", "0"), "batch_size is 0; it must be positive"),
        (("--microbatches", "3"), "batch_size 2 cannot be cut in 3 microbatches on each of 1 devices"),
        (("--input.split", "nowhere"), "has no split 'nowhere'; it has train"),
        (("--no-adapt-to-data",), "the data has 32768 tokens and 4 segments per example and the model 256 and 8"),
    ],
)
def test_what_cannot_be_is_one_sentence(undisturbed, data, capsys, more, sentence):
    assert run_command(lambda: pretrain.main(arguments(data, undisturbed, *more))) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_a_batch_larger_than_the_data_is_refused(data, tmp_path, capsys):
    assert run_command(lambda: pretrain.main(arguments(data, tmp_path, "--batch-size", "10"))) == 2
    assert "batch_size 10 is larger than the 9 examples of" in capsys.readouterr().err
    assert not (tmp_path / "config.json").exists()


def test_a_run_that_could_not_start_does_not_bind_the_folder(undisturbed, data, tmp_path, capsys):
    workdir = tmp_path / "run"
    (tmp_path / "nothing").mkdir()
    assert run_command(lambda: pretrain.main(arguments(data, workdir, "--init", str(tmp_path / "nothing")))) == 2
    assert "has no file ckpt_STEP" in capsys.readouterr().err
    assert run_command(lambda: pretrain.main(arguments(data, workdir, "--steps", "1", "--init", str(undisturbed)))) == 0
    assert json.loads((workdir / "config.json").read_text())["init"] == str(undisturbed)


def test_another_init_is_refused_in_a_work_folder_that_has_one(undisturbed, data, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert run_command(lambda: pretrain.main(arguments(data, workdir, "--steps", "1", "--init", str(undisturbed)))) == 0
    assert run_command(lambda: pretrain.main(arguments(data, workdir, "--steps", "2", "--init", str(undisturbed)))) == 0
    capsys.readouterr()
    other = str(undisturbed / "export")
    assert run_command(lambda: pretrain.main(arguments(data, workdir, "--steps", "3", "--init", other))) == 2
    assert f"belongs to a run with init {str(undisturbed)!r}, not {other!r}" in capsys.readouterr().err
    assert run_command(lambda: pretrain.main(arguments(data, undisturbed, "--init", other))) == 2
    assert "belongs to a run with init None" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"model": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_configuration_is_one_sentence(undisturbed, data, tmp_path, capsys, damage):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    (workdir / "config.json").write_bytes(damage)
    for command in (
        lambda: pretrain.main(arguments(data, workdir)),
        lambda: evaluate.main(["pretraining", "--data", str(data), "--checkpoint", str(workdir), "--split", "train"]),
    ):
        assert run_command(command) in (1, 2)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert f"{str(workdir / 'config.json')!r} is damaged" in error or "belongs to a run with" in error
    assert (workdir / "config.json").read_bytes() == damage


def test_bad_places_are_one_sentence(data, tmp_path, capsys):
    empty, file = tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("no folder")
    missing = str(tmp_path / "none")
    for argv, status, sentence in (
        (arguments(empty, tmp_path / "run"), 2, "contains no shards"),
        (arguments(data, file / "run"), 1, "cannot access"),
        (arguments(data, "/proc/run"), 1, "cannot access '/proc/run'"),
        (arguments(data, tmp_path / "run", "--init", missing), 2, "is neither a file or folder nor a published name"),
    ):
        assert run_command(lambda argv=argv: pretrain.main(argv)) == status
        assert sentence in capsys.readouterr().err
    assert run_command(lambda: pretrain.main(arguments(data, tmp_path / "run", "--learning-rat", "1"))) == 2
    assert "unknown argument '--learning-rat'" in capsys.readouterr().err


def test_too_many_skipped_updates_stop_the_run(undisturbed, data, tmp_path, capsys):
    params = published.load(undisturbed / "export").params
    # The first layer's outputs are infinite.
    encoder = jax.tree.map(lambda leaf: np.full_like(leaf, 1e38), params["vision_encoder"])
    export({**params, "vision_encoder": encoder}, tmp_path / "ckpt_0", dtype="float32")
    argv = arguments(data, tmp_path, "--steps", "9", "--skip-limit", "2", "--init", str(tmp_path / "ckpt_0"))
    assert run_command(lambda: pretrain.main(argv)) == 1
    error = capsys.readouterr().err
    assert re.search(
        r"of the last 2 steps were not finite, up to step \d+; '.*diverged.json' says which batches", error
    )
    named = json.loads((tmp_path / "diverged.json").read_text())
    assert (named["batches"], named["batch_size"]) == (2, 2)
    assert named["reader_after_them"]["position"] == 2 * named["step"]


def test_weights_that_are_not_finite_are_nowhere_started_from(undisturbed, data, tmp_path, capsys):
    params = published.load(undisturbed / "export").params
    spoiled = {**params, "contrastive_scales": np.full(3, np.nan, np.float32)}
    state = {"step": 0, "params": jax.tree.map(np.asarray, spoiled), "opt_state": None}
    (tmp_path / "ckpt_0").write_bytes(serialization.msgpack_serialize(state))
    weights = str(tmp_path / "ckpt_0")
    for command in (
        lambda: pretrain.main(arguments(data, tmp_path / "run", "--init", weights)),
        lambda: evaluate.main(["pretraining", "--data", str(data), "--checkpoint", weights, "--split", "train"]),
    ):
        assert run_command(command) == 1
        assert "has weights that are not finite, in contrastive_scales" in capsys.readouterr().err


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_stopped_has_the_same_losses_bit_for_bit(undisturbed, data, run, tmp_path, number):
    command = arguments(data, tmp_path / "run", "--steps", str(STEPS))
    process = run.start("train.pretrain", *command)
    process.wait_until((tmp_path / "run" / "checkpoints" / "8").exists, 200)
    process.send_signal(number)
    stopped = process.wait(120)
    assert stopped.status == (-signal.SIGKILL if number == signal.SIGKILL else 0), stopped.err
    if number == signal.SIGTERM:
        assert re.search(r"stopped at step \d+ of 40; the same command continues", stopped.err)
    continued = run("train.pretrain", *command)
    assert continued.status == 0, continued.err
    assert re.search(r"continuing from step \d+", continued.err)
    expected = losses(undisturbed)
    assert losses(tmp_path / "run") == {step: expected[step] for step in range(1, STEPS + 1)}


@pytest.fixture
def small_disk(undisturbed, tmp_path):
    """A disk that holds a checkpoint or two of the small run, which keeps three."""
    newest = undisturbed / "checkpoints" / str(STEPS)
    size = int(1.7 * sum(file.stat().st_size for file in newest.rglob("*") if file.is_file()))
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_full_disk_leaves_earlier_checkpoints_intact(undisturbed, data, run, small_disk, tmp_path):
    stopped = run("train.pretrain", *arguments(data, small_disk / "run", "--steps", str(STEPS)))
    assert stopped.status == 1
    assert re.search(
        r"error: .* cannot be written to '.*checkpoints': No space left on device; earlier", stopped.err
    ), stopped.err
    assert "Traceback" not in stopped.err, stopped.err
    shutil.copytree(small_disk / "run", tmp_path / "moved")
    continued = run("train.pretrain", *arguments(data, tmp_path / "moved", "--steps", str(STEPS)))
    assert continued.status == 0, continued.err
    assert re.search("continuing from step (4|8)\n", continued.err)
    expected = losses(undisturbed)
    assert losses(tmp_path / "moved") == {step: expected[step] for step in range(1, STEPS + 1)}


def test_an_unknown_preset_key_is_refused():
    with pytest.raises(TypeError):
        dataclasses.replace(TINY, learning_rat=1)
    with pytest.raises(UsageError, match="log_every is 0; it must be positive"):
        dataclasses.replace(TINY, log_every=0)
