"""Where figures go: TensorBoard reads the event files, a terminal has a bar, and what cannot be is one sentence."""

import io
import json
import re

import jax
import numpy as np
import pytest
from rich.console import Console

from shards.storage.errors import StorageError, UsageError
from train.metrics.formatting import MetricsError, MetricsLog
from train.metrics.metric_writer import MetricWriter
from train.metrics.profiler import SKIPPED, Profiler
from train.metrics.tensorboard import EventFiles

LINE = {
    "step": 5,
    "loss": 2.5,
    "skipped": 0.0,
    "grad_norm": float("nan"),
    "examples_per_second": 20.0,
    "wait_share": 0.02,
    "seconds_per_step": 0.2,
}


@pytest.fixture
def scalars():
    """Read a folder as TensorBoard does: the series by name, each of steps and values."""
    reason = "tensorboard is not installed here; the locked environment has it"
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)

    def read(folder):
        events = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return read


def test_tensorboard_reads_what_was_written(tmp_path, scalars):
    file = EventFiles(str(tmp_path), 300)
    file.write(301, {"loss": 2.5, "val/loss": -1e-3})
    file.write(100_000, {"loss": 0.0})
    assert scalars(tmp_path) == {"loss": [(301, 2.5), (100_000, 0.0)], "val/loss": [(301, np.float32(-1e-3))]}
    with pytest.raises(StorageError, match="cannot write '/proc/events'"):
        EventFiles("/proc/events", 0)


def test_metrics_continue_from_the_restored_step(tmp_path, scalars):
    said = io.StringIO()
    console = Console(file=said, width=200)
    for begun, steps in ((0, (5, 10)), (5, (10,))):
        with MetricWriter(str(tmp_path), begun, 20, console, flops=3_000_000_000_000) as journal:
            for step in steps:
                journal({**LINE, "step": step})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10]
    assert lines[0]["model_tflops_per_second"] == 60.0
    assert lines[0]["grad_norm"] is None
    assert 0.01 < lines[0]["host_memory_gib"] < 1_000
    assert said.getvalue().splitlines()[0] == "step 5/20  loss 2.5000  20.0 examples/s  waiting 2.0%  3 s left"
    read = scalars(tmp_path / "events")
    # The step after the restored one is that of the second start alone.
    assert read["loss"] == [(5, 2.5), (10, 2.5)]
    assert "grad_norm" not in read


def test_a_terminal_has_a_bar_with_loss_and_time_left(tmp_path):
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=160, highlight=False)
    with MetricWriter(str(tmp_path), 0, 20, console) as journal:
        journal(dict(LINE))
        journal({"step": 5, "val/loss": 3.0, "val/accuracy/stuff_to_span": 0.5, "val/chance/stuff_to_span": 0.1})
    assert "step 5/20" in said.getvalue()
    assert "loss 2.5000  20.0 examples/s" in said.getvalue()
    assert "val loss 3.0000" in said.getvalue()


def test_wandb_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "reservoir")
    with pytest.raises(
        UsageError, match="WANDB_PROJECT is 'reservoir' but wandb is not installed; install it or unset"
    ):
        MetricWriter(str(tmp_path), 0, 20, Console(file=io.StringIO()))


WANDB = """
calls = []
class Run:
    def finish(self): pass
def init(**arguments):
    calls.append(arguments)
    return Run()
"""


def test_a_run_of_wandb_belongs_to_the_whole_work_folder(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WANDB_PROJECT", "reservoir")
    monkeypatch.chdir(tmp_path)
    workdirs = ("a/run", "b/run", "a/../a/run/", "my runs/base: 2")
    for workdir in workdirs:
        with MetricWriter(workdir, 0, 20, Console(file=io.StringIO())):
            pass
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    with MetricWriter("a/run", 0, 20, Console(file=io.StringIO())):
        pass
    import wandb

    first, second, again, spaced, given = wandb.calls
    assert first["id"] == again["id"] != second["id"]
    assert re.fullmatch(r"run-[0-9a-f]{12}", first["id"])
    assert re.fullmatch(r"base-2-[0-9a-f]{12}", spaced["id"])
    assert (first["name"], second["name"], spaced["name"]) == ("run", "run", "base: 2")
    assert given["id"] == "mine"
    assert {call["resume"] for call in wandb.calls} == {"allow"}


def test_a_profile_of_some_steps(tmp_path):
    once = jax.jit(lambda x: x + 1)
    trace, x = Profiler(str(tmp_path / "profile"), 2), jax.numpy.zeros(())
    for done in range(1, SKIPPED + 5):
        x = once(x)
        trace(done, x)
        assert bool(list(tmp_path.rglob("*.xplane.pb"))) == (done >= SKIPPED + 2)


def test_damaged_metrics_are_named_and_torn_lines_skipped(tmp_path):
    log = MetricsLog(str(tmp_path / "metrics.jsonl"))
    log.append({"step": 1, "loss": 2.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "lo')
    log.append({"step": 3, "loss": 1.5})
    assert [line["step"] for line in log.lines()] == [1, 3]
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    for damage in (b'{"stap": 4}\n', b'{"step": "x"}\n', b'{"step": NaN}\n', b"\x00\xff}\n", b"[" * 100_000 + b"}\n"):
        (tmp_path / "metrics.jsonl").write_bytes(whole + damage)
        with pytest.raises(MetricsError, match="line 4 is"):
            log.lines()
        with pytest.raises(MetricsError):
            log.drop_after(1)
        assert (tmp_path / "metrics.jsonl").read_bytes() == whole + damage
