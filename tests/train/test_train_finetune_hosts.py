"""Two processes on this machine as one finetuning run: the losses, the evaluations and the weights of one process."""

import json
import socket

import numpy as np
import pytest
from PIL import Image

from model import published
from pipelines import choices
from train.metrics.formatting import MetricsLog

COLOURS = ("red", "green", "blue", "white")
QUESTIONS, BATCH, EPOCHS = 12, 4, 2
SMALL = (
    *("--init", "random:tiny", "--input.grid", "2", "2", "--dtype", "float32", "--batch-size", str(BATCH)),
    *("--learning-rate", "1e-4", "--log-every", "1", "--checkpoint-every", "2", "--mesh.fsdp", "2"),
    *("--epochs", str(EPOCHS)),
)


@pytest.fixture(scope="module")
def data(published_tokenizer, tmp_path_factory):
    """Pictures whose colour is asked for."""
    out = tmp_path_factory.mktemp("colours")
    common = ("--out", str(out / "data"), "--tokenizer", str(published_tokenizer))
    for split in ("train", "val"):
        lines = []
        for i in range(QUESTIONS):
            Image.new("RGB", (64, 64), COLOURS[i % 4]).save(out / f"{i}.jpg")
            question = {"question": "Which colour is it?", "answers": list(COLOURS), "label": i % 4}
            lines.append(json.dumps({"image": f"{i}.jpg"} | question))
        (out / f"{split}.jsonl").write_text("\n".join(lines))
        in_process = ("--direct_num_workers=1", "--direct_running_mode=in_memory")
        assert choices.main(["--data", str(out / f"{split}.jsonl"), "--split", split, *common, *in_process]) == 0
    return out / "data"


@pytest.fixture(scope="module")
def start(run, data):
    """Start so many processes, which share two simulated devices."""

    def begin(workdir, count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        devices = f"--xla_force_host_platform_device_count={2 // count} --xla_backend_optimization_level=0"
        command = ["choices", "--data", data, "--workdir", workdir, *SMALL]
        if count > 1:
            command += ["--coordinator", address, "--hosts", count]
        hosts = [("--host", host) for host in range(count)] if count > 1 else [()]
        return [
            run.start("train.finetune", *command, *host, env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices})
            for host in hosts
        ]

    return begin


def finish(processes):
    ran = [process.wait() for process in processes]
    assert [each.status for each in ran] == [0] * len(ran), ran
    assert [each.err.count("finished 6 steps") for each in ran] == [1] + [0] * (len(ran) - 1)


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_two_processes_finetune_as_one(start, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    finish(start(alone, 1))
    processes = start(together, 2)
    for process in processes:
        process.wait_until((together / "metrics.jsonl").exists, 200)
    processes[1].kill()
    ended = processes[0].wait(120)
    assert ended.status == 1, ended.err
    assert "error: process 1 of 2 died" in ended.err.splitlines()[-1]
    finish(start(together, 2))
    lines = [MetricsLog(str(folder / "metrics.jsonl")).lines() for folder in (alone, together)]
    assert [line["step"] for line in lines[1]] == list(range(1, EPOCHS * QUESTIONS // BATCH + 1))
    expected, found = ([line["loss"] for line in run] for run in lines)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    judged = [MetricsLog(str(folder / "evaluations.jsonl")).lines() for folder in (alone, together)]
    assert [line["step"] for line in judged[1]] == [3, 6]
    assert judged[1] == judged[0]
    best = [published.load(folder / "best", grid=None).params["proj"]["kernel"] for folder in (alone, together)]
    np.testing.assert_allclose(*best, atol=1e-3)
