"""Two processes on this machine as one finetuning run: the losses, the evaluations and the weights of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import published
from pipelines import choices
from train.metrics import MetricsLog

ROOT = Path(__file__).parent.parent.parent
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
def finished(data, tmp_path_factory):
    """Runs so many processes, which share two simulated devices, to the end; gives the work folder."""

    def run(count):
        folder = tmp_path_factory.mktemp(f"{count}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // count} --xla_backend_optimization_level=0",
        }
        command = ["choices", "--data", str(data), "--workdir", str(folder / "run"), *SMALL]
        logs = [folder / f"log-{host}" for host in range(count)]
        processes = []
        for host, log in enumerate(logs):
            together = ("--coordinator", address, "--hosts", str(count), "--host", str(host)) if count > 1 else ()
            with log.open("w") as file:
                start = [sys.executable, "-m", "train.finetune", *command, *together]
                processes.append(subprocess.Popen(start, cwd=ROOT, env=environment, stdout=file, stderr=file))
        try:
            for process, log in zip(processes, logs, strict=True):
                assert process.wait(400) == 0, log.read_text()[-3000:]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert [log.read_text().count("finished 6 steps") for log in logs] == [1] + [0] * (count - 1)
        return folder / "run"

    return run


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_two_processes_finetune_as_one(finished):
    alone, together = finished(1), finished(2)
    lines = [MetricsLog(str(folder / "metrics.jsonl")).lines() for folder in (alone, together)]
    assert [line["step"] for line in lines[1]] == list(range(1, EPOCHS * QUESTIONS // BATCH + 1))
    expected, found = ([line["loss"] for line in run] for run in lines)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    judged = [MetricsLog(str(folder / "evaluations.jsonl")).lines() for folder in (alone, together)]
    assert [line["step"] for line in judged[1]] == [3, 6]
    assert judged[1] == judged[0]
    best = [published.load(folder / "best", grid=None).params["proj"]["kernel"] for folder in (alone, together)]
    np.testing.assert_allclose(*best, atol=1e-3)
