"""Where figures go: TensorBoard reads the event files, a terminal has a bar, and what cannot be is one sentence."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console
from tensorflow.core.util.event_pb2 import Event, SessionLog

from shards import tfrecord
from shards.errors import StorageError, UsageError
from train.journal import Journal
from train.tensorboard import EventFile
from train.trace import SKIPPED, Trace

LINE = {
    "step": 5,
    "loss": 2.5,
    "skipped": 0.0,
    "grad_norm": float("nan"),
    "examples_per_second": 20.0,
    "wait_share": 0.02,
    "seconds_per_step": 0.2,
}


def events(folder):
    """All events of a folder, read by TensorFlow's own messages."""
    found = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found += [Event.FromString(payload) for _, payload in tfrecord.scan(file, path.name)]
    return found


def test_tensorboard_reads_what_was_written(tmp_path):
    file = EventFile(str(tmp_path), 300)
    file.write(301, {"loss": 2.5, "val/loss": -1e-3})
    file.write(100_000, {"loss": 0.0})
    version, start, first, second = events(tmp_path)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (300, SessionLog.START)
    assert {value.tag: value.simple_value for value in first.summary.value} == {
        "loss": 2.5,
        "val/loss": np.float32(-1e-3),
    }
    assert (first.step, second.step) == (301, 100_000)
    assert first.wall_time > 1.7e9
    with pytest.raises(StorageError, match="cannot write '/proc/events'"):
        EventFile("/proc/events", 0)


def test_figures_go_everywhere_and_continue_from_the_restored_step(tmp_path):
    said = io.StringIO()
    console = Console(file=said, width=200)
    for begun, steps in ((0, (5, 10)), (5, (10,))):
        with Journal(str(tmp_path), begun, 20, console, flops=3_000_000_000_000) as journal:
            for step in steps:
                journal({**LINE, "step": step})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10]
    assert lines[0]["model_tflops_per_second"] == 60.0
    assert lines[0]["grad_norm"] is None
    assert 0.01 < lines[0]["host_memory_gib"] < 1_000
    assert said.getvalue().splitlines()[0] == "step 5/20  loss 2.5000  20.0 examples/s  waiting 2.0%  3 s left"
    tags = [{value.tag for value in event.summary.value} for event in events(tmp_path / "events")]
    assert "loss" in tags[2]
    assert "grad_norm" not in tags[2]


def test_a_terminal_has_a_bar_with_loss_and_time_left(tmp_path):
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=160, highlight=False)
    with Journal(str(tmp_path), 0, 20, console) as journal:
        journal(dict(LINE))
        journal({"step": 5, "val/loss": 3.0, "val/accuracy/stuff_to_span": 0.5})
    assert "step 5/20" in said.getvalue()
    assert "loss 2.5000  20.0 examples/s" in said.getvalue()
    assert "val loss 3.0000" in said.getvalue()


def test_wandb_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "reservoir")
    with pytest.raises(
        UsageError, match="WANDB_PROJECT is 'reservoir' but wandb is not installed; install it or unset"
    ):
        Journal(str(tmp_path), 0, 20, Console(file=io.StringIO()))


def test_a_profile_of_some_steps(tmp_path):
    once = jax.jit(lambda x: x + 1)
    trace, x = Trace(str(tmp_path / "profile"), 2), jax.numpy.zeros(())
    for done in range(1, SKIPPED + 5):
        x = once(x)
        trace(done, x)
        assert bool(list(tmp_path.rglob("*.xplane.pb"))) == (done >= SKIPPED + 2)
    with pytest.raises(UsageError, match="a profile cannot be written to 'gs://b/profile'"):
        Trace("gs://b/profile", 1)
