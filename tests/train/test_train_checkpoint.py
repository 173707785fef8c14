"""Checkpoints: everything comes back, on another mesh too; damage is noticed; exports load like published files."""

import dataclasses
import json
import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import published
from model.checkpoints import WeightsNotFiniteError
from model.config import TINY
from train.checkpoint import CheckpointError, Checkpoints, export_published, fingerprint
from train.config import OptimizerConfig, TrainConfig
from train.loop import DivergenceError, LoopConfig, check_trained, run
from train.mesh import make_mesh
from train.metrics.formatting import MetricsLog, console_line
from train.step import initial_state, state_shapes

RUN = TrainConfig(TINY, OptimizerConfig(total_steps=10, warmup_steps=1), batch_size=4)
READER = {"seed": 0, "position": 12, "data": ["digest"], "positions": [12]}


@pytest.fixture(scope="module")
def laid():
    return make_mesh(RUN.mesh, jax.devices()[:1])


@pytest.fixture(scope="module")
def state(laid):
    """A state in which no two arrays are alike, moments in bfloat16 included."""
    state = initial_state(RUN, laid)
    rng = np.random.default_rng(3)

    def filled(leaf):
        return jax.device_put(rng.standard_normal(leaf.shape).astype(leaf.dtype), leaf.sharding) if leaf.ndim else leaf

    return jax.tree.map(filled, state).replace(key=state.key)


def at(state, step):
    return state.replace(step=jnp.int32(step))


def save_all(folder, state, steps, keep=3, keep_every=None):
    checkpoints = Checkpoints(str(folder / "checkpoints"), keep, keep_every)
    for step in steps:
        checkpoints.save(at(state, step), {**READER, "position": step})
    checkpoints.wait()
    return checkpoints


def largest_file(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def test_everything_comes_back(tmp_path, state, laid):
    checkpoints = save_all(tmp_path, state, [7])
    restored = checkpoints.restore(state_shapes(RUN), laid)
    jax.tree.map(np.testing.assert_array_equal, restored.state, at(state, 7))
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert restored.reader == {**READER, "position": 7}


def test_the_newest_and_the_milestones_are_kept(tmp_path, state):
    assert save_all(tmp_path, state, [2, 4, 5, 6, 7], keep=2, keep_every=4).steps() == [4, 6, 7]


def test_an_empty_folder_restores_nothing(tmp_path, laid):
    assert Checkpoints(str(tmp_path / "none"), 1).restore(state_shapes(RUN), laid) is None


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, lambda file: file.unlink()])
def test_damage_falls_back_to_the_one_before_and_says_so(tmp_path, state, laid, caplog, damage):
    save_all(tmp_path, state, [3, 6]).close()
    damage(largest_file(tmp_path / "checkpoints" / "6"))
    checkpoints = Checkpoints(str(tmp_path / "checkpoints"), 3)
    with caplog.at_level(logging.WARNING, "train.checkpoint"):
        restored = checkpoints.restore(state_shapes(RUN), laid)
    assert int(restored.state.step) == 3
    assert "checkpoint 6 is damaged" in caplog.text
    assert "continuing from 3" in caplog.text
    assert (tmp_path / "damaged" / "6").is_dir()
    checkpoints.save(at(state, 6), READER)
    checkpoints.wait()
    assert checkpoints.steps() == [3, 6]
    assert int(checkpoints.restore(state_shapes(RUN), laid).state.step) == 6


def test_nothing_is_touched_if_no_checkpoint_is_sound(tmp_path, state, laid):
    checkpoints = save_all(tmp_path, state, [3])
    other = dataclasses.replace(RUN, model=dataclasses.replace(TINY, hidden_size=32))
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints .* can be restored, the newest, 3: "):
        checkpoints.restore(state_shapes(other), laid)
    assert checkpoints.steps() == [3]
    assert int(checkpoints.restore(state_shapes(RUN), laid).state.step) == 3


LATE_WRITE = "tests.programs.late_write"


def test_a_write_that_ends_after_a_failure_prints_nothing():
    late = subprocess.run([sys.executable, "-m", LATE_WRITE], capture_output=True, text=True, check=False)
    assert (late.returncode, late.stderr) == (0, "")
    loud = subprocess.run(
        [sys.executable, "-m", LATE_WRITE, "loud"], capture_output=True, text=True, check=False
    ).stderr
    assert "something else" in loud
    assert "Event loop" not in loud


def test_one_bit_changes_the_fingerprint(state):
    kernel = np.array(state.params["head"]["kernel"])
    bits = kernel.view(np.uint32)
    bits[3, 4] ^= 1
    params = {**state.params, "head": {**state.params["head"], "kernel": jnp.asarray(kernel)}}
    assert int(fingerprint(state)) == int(fingerprint(jax.tree.map(jnp.array, state)))
    assert int(fingerprint(state)) != int(fingerprint(state.replace(params=params)))


def test_exports_load_like_published_files(tmp_path, state):
    path = export_published(at(state, 9), str(tmp_path), b"{}")
    assert path == str(tmp_path / "ckpt_9")
    loaded = published.load(tmp_path, config=TINY)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.float16(b)), loaded.params, state.params)
    assert (tmp_path / "tokenizer.json").read_bytes() == b"{}"
    huge = state.replace(params={**state.params, "contrastive_scales": jnp.full(3, 1e6)})
    with pytest.raises(CheckpointError, match="contrastive_scales has values up to 1e\\+06"):
        export_published(huge, str(tmp_path))


def test_metrics_tell_one_story(tmp_path):
    log = MetricsLog(str(tmp_path / "metrics.jsonl"))
    assert log.lines() == []
    log.drop_after(3)
    for step in (1, 2, 3):
        log.append({"step": step, "loss": float("nan") if step == 2 else 0.1 * step})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "lo')
    log.append({"step": 5, "loss": 0.5})
    assert [line["step"] for line in log.lines()] == [1, 2, 3, 5]
    log.drop_after(2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": None}]


class Batches:
    """A reader whose batches hold nothing."""

    position = 0

    def __next__(self):
        self.position += 1
        return {"images": np.zeros((1, 1), np.float32)}

    def state(self):
        return {**READER, "position": self.position}


@pytest.mark.parametrize("spoiled", [3, 4])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, state, laid, spoiled):
    """A step that spoils the weights without being noticed, before a checkpoint and before the last one."""

    def step(given, batch):
        factor = jnp.where(given.step + 1 == spoiled, jnp.nan, 1.0)
        params = jax.tree.map(lambda leaf: leaf * factor, given.params)
        metrics = {name: jnp.zeros(()) for name in ("loss", "skipped", "skipped_in_a_row")}
        return given.replace(params=params, step=given.step + 1), metrics

    checkpoints = Checkpoints(str(tmp_path / "checkpoints"), 3)
    config = LoopConfig(steps=5, batch_size=1, log_every=1, checkpoint_every=2, skip_limit=9)
    with pytest.raises(DivergenceError, match=r"weights are not finite after step [45]"):
        run(step, config, laid, at(state, 0), Batches(), checkpoints, str(tmp_path))
    checkpoints.wait()
    assert checkpoints.steps() == [2]
    with pytest.raises(WeightsNotFiniteError, match="not finite, so nothing is written"):
        export_published(
            at(state.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)), 0), str(tmp_path)
        )
    assert not (tmp_path / "ckpt_0").exists()


def test_a_state_whose_last_update_was_skipped_is_not_exported(state):
    check_trained(state.replace(skipped_in_a_row=jnp.int32(0)))
    with pytest.raises(DivergenceError, match="the last 2 updates before step 7 were not finite and were skipped"):
        check_trained(at(state.replace(skipped_in_a_row=jnp.int32(2)), 7))


def test_console_line():
    metrics = {"step": 50.0, "loss": 11.25, "examples_per_second": 20.0, "wait_share": 0.02, "seconds_per_step": 0.2}
    line = console_line({**metrics, "skipped": 0.0}, 100)
    assert line == "step 50/100  loss 11.2500  20.0 examples/s  waiting 2.0%  10 s left"
    assert console_line({**metrics, "skipped": 2.0}, 50_000).endswith("2.8 h left  2 updates skipped")
