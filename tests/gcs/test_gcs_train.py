"""Training into a bucket: its files, a kill, damage, half-written checkpoints, other runs, and several processes."""

import json
import logging
import os
import re
import signal
import socket

import jax
import numpy as np
import pytest
from emulator import SHORT_LEASES
from etils import epath
from PIL import Image

from pipelines import choices
from shards.command_line import run_command
from shards.storage import filesystem
from shards.storage.errors import UsageError
from tests.reader_data import write_data
from train import evaluate, finetune, pretrain, weights
from train.bucket import BucketPath
from train.metrics.formatting import MetricsLog

STEPS = 16
SMALL = (
    *("--adapt-to-data", "--batch-size", "2", "--model.hidden-size", "32", "--model.sequence-length", "192"),
    *("--optimizer.total-steps", "100", "--log-every", "1", "--checkpoint-every", "4"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("train") / "data", [5, 4])


@pytest.fixture
def place(bucket, monkeypatch):
    """A work folder in the bucket; TensorStore has a setting of its own for the service's address."""
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", os.environ["STORAGE_EMULATOR_HOST"])
    return f"{bucket}/run"


def arguments(data, workdir, *more):
    return ["tiny", "--data", str(data), "--workdir", str(workdir), *SMALL, *more]


def losses(workdir):
    return {line["step"]: line["loss"] for line in MetricsLog(f"{workdir}/metrics.jsonl").lines()}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The losses of a finished run on a disk."""
    workdir = tmp_path_factory.mktemp("run")
    assert run_command(lambda: pretrain.main(arguments(data, workdir, "--steps", str(STEPS)))) == 0
    return losses(workdir)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_stopped_has_the_same_losses_bit_for_bit(undisturbed, data, place, run, number):
    command = arguments(data, place, "--steps", str(STEPS))
    process = run.start("train.pretrain", *command, before=SHORT_LEASES)
    process.wait_until(lambda: filesystem.exists(f"{place}/checkpoints/4/commit_success.txt"), 200)
    process.send_signal(number)
    ended = process.wait(120)
    assert ended.status == (-signal.SIGKILL if number == signal.SIGKILL else 0), ended.err
    # A process that was killed leaves its lease, which the next one waits for.
    ended = run("train.pretrain", *command, before=SHORT_LEASES)
    assert ended.status == 0, ended.err
    assert re.search(r"continuing from step \d+", ended.err)
    assert losses(place) == undisturbed


def newest(place):
    return BucketPath(f"{place}/checkpoints/{STEPS // 2}")


def flip_a_bit(checkpoint):
    """In the largest object."""
    largest = max(checkpoint._files(), key=lambda path: filesystem.size(str(path)))
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))
    return "checkpoint 8 is damaged (its bits are not those that were saved); continuing from 4, it was moved to"


def take_the_mark(checkpoint):
    """What a kill leaves that comes while a checkpoint is written."""
    (checkpoint / "commit_success.txt").unlink()
    return ""


@pytest.mark.parametrize("damage", [flip_a_bit, take_the_mark])
def test_damage_falls_back_to_the_checkpoint_before(undisturbed, data, place, caplog, capsys, damage):
    half, whole = (arguments(data, place, "--steps", str(steps)) for steps in (STEPS // 2, STEPS))
    assert run_command(lambda: pretrain.main(half)) == 0
    said = damage(newest(place))
    capsys.readouterr()
    with caplog.at_level(logging.WARNING, "train.checkpoint"):
        assert run_command(lambda: pretrain.main(whole)) == 0
    assert "continuing from step 4\n" in capsys.readouterr().err
    assert said in caplog.text
    assert losses(place) == undisturbed
    assert filesystem.list_folders(f"{place}/checkpoints") == ["12", "16", "8"]
    assert (newest(place) / "commit_success.txt").exists()
    assert filesystem.list_folders(f"{place}/damaged") == (["8"] if said else [])


def test_all_of_a_run_is_in_its_bucket_and_others_are_refused(undisturbed, data, place, capsys):
    assert run_command(lambda: pretrain.main(arguments(data, place, "--steps", "4"))) == 0
    assert filesystem.list_folders(place) == ["checkpoints", "events", "export"]
    assert len(filesystem.list_files(f"{place}/events")) == 1
    assert filesystem.list_files(place) == [f"{place}/{name}" for name in ("config.json", "metrics.jsonl")]
    assert json.loads(filesystem.read_bytes(f"{place}/config.json"))["model"]["hidden_size"] == 32
    assert losses(place) == {step: undisturbed[step] for step in (1, 2, 3, 4)}
    assert filesystem.exists(f"{place}/export/ckpt_4")
    loaded = weights.load(place)
    assert loaded.config.model.segments == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loaded.params))
    assert run_command(lambda: pretrain.main(arguments(data, place, "--seed", "5"))) == 2
    assert f"{place!r} belongs to a run with seed 0, not 5; choose another --workdir" in capsys.readouterr().err
    BucketPath(f"{place}/checkpoints").rmtree()
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        weights.load(place)


@pytest.fixture(scope="module")
def questions(published_tokenizer, tmp_path_factory):
    """Pictures whose colour is asked for."""
    out, colours = tmp_path_factory.mktemp("colours"), ("red", "green", "blue", "white")
    for split in ("train", "val"):
        lines = []
        for i, colour in enumerate(colours):
            Image.new("RGB", (64, 64), colour).save(out / f"{i}.jpg")
            question = {"question": "Which colour is it?", "answers": colours, "label": i}
            lines.append(json.dumps({"image": f"{i}.jpg"} | question))
        (out / f"{split}.jsonl").write_text("\n".join(lines))
        job = ["--data", str(out / f"{split}.jsonl"), "--split", split, "--out", str(out / "data")]
        job += ["--tokenizer", str(published_tokenizer)]
        assert choices.main([*job, "--direct_num_workers=1", "--direct_running_mode=in_memory"]) == 0
    return str(out / "data")


def test_weights_in_a_bucket_start_other_runs_and_are_evaluated(data, questions, place, bucket, capsys):
    assert run_command(lambda: pretrain.main(arguments(data, place, "--steps", "2"))) == 0
    onward = arguments(data, f"{bucket}/onward", "--steps", "2", "--init", f"{place}/export")
    assert run_command(lambda: pretrain.main(onward)) == 0
    assert f"starting from the weights {place}/export/ckpt_2 of the run {place}\n" in capsys.readouterr().err
    assert losses(f"{bucket}/onward") != losses(place)

    tuned = f"{bucket}/tuned"
    small = ("--input.grid", "2", "2", "--dtype", "float32", "--batch-size", "2", "--epochs", "1")
    command = ["choices", "--data", questions, "--init", place, "--workdir", tuned, *small]
    assert run_command(lambda: finetune.main(command)) == 0
    kept = [path.rpartition("/")[2] for path in filesystem.list_files(f"{tuned}/best")]
    assert kept == ["ckpt_2", "model.json", "tokenizer.json"]
    capsys.readouterr()
    for checkpoint in (tuned, f"{tuned}/best", f"{tuned}/best/ckpt_2"):
        judge = ["choices", "--data", questions, "--split", "val", "--checkpoint", checkpoint]
        assert run_command(lambda judge=judge: evaluate.main(judge)) == 0
        assert "/4 " in capsys.readouterr().out
    other = arguments(data, f"{bucket}/other", "--init", f"{bucket}/nothing")
    assert run_command(lambda: pretrain.main(other)) == 2
    assert f"{bucket}/nothing' is neither a file nor a published name" in capsys.readouterr().err


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_two_processes_share_a_bucket(undisturbed, data, place, run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    last, quick = 10, {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    for steps in (6, last):
        command = arguments(data, place, "--steps", str(steps), "--mesh.fsdp", "2", "--coordinator", address)
        processes = [
            run.start("train.pretrain", *command, "--hosts", "2", "--host", str(host), env=quick) for host in range(2)
        ]
        first, second = [process.wait() for process in processes]
        assert (first.status, second.status) == (0, 0), first.err + second.err
    assert "continuing from step 6" in first.err
    parts = filesystem.list_folders(f"{place}/checkpoints/{last}/state")
    assert [part for part in parts if part.startswith("ocdbt.process_")] == ["ocdbt.process_0", "ocdbt.process_1"]
    found = losses(place)
    assert list(found) == list(range(1, last + 1))
    np.testing.assert_allclose(list(found.values()), [undisturbed[step] for step in found], rtol=1e-4)


def test_a_folder_in_a_bucket_answers_like_one_on_a_disk(bucket, tmp_path):
    def ask(top):
        folder = top / "a"
        assert not folder.exists()
        folder.mkdir(parents=True)
        (folder / "text").write_text("wörter")
        (folder / "deeper").mkdir()
        (folder / "deeper" / "one.bin").write_bytes(b"1")
        (folder / "deeper" / "two").write_bytes(b"22")
        with pytest.raises(FileExistsError):
            folder.mkdir()
        folder.mkdir(exist_ok=True)
        yield (folder / "text").read_text()
        yield sorted(path.name for path in folder.iterdir())
        yield sorted(path.name for path in folder.glob("deeper/*.bin"))
        yield [path.is_dir() for path in (folder, folder / "text", folder / "none")]
        yield [path.is_file() for path in (folder, folder / "text", folder / "none")]
        moved = folder.rename(top / "b")
        yield folder.exists(), (moved / "deeper" / "two").read_bytes()
        (moved / "text").unlink()
        (moved / "text").unlink(missing_ok=True)
        for missing in (moved / "text", moved / "none"):
            with pytest.raises(FileNotFoundError):
                missing.read_bytes()
            with pytest.raises(FileNotFoundError):
                missing.unlink()
        (moved / "deeper").rmtree()
        yield (moved / "deeper").exists()
        with pytest.raises(FileNotFoundError):
            (moved / "deeper").rmtree()

    assert list(ask(BucketPath(f"{bucket}/top"))) == list(ask(epath.Path(tmp_path)))
