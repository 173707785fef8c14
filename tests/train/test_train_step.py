"""The step: the same loss on any mesh, skipped updates, accuracies against a plain computation, and sharding rules."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from model.config import BASE, TINY, ConfigError
from model.losses import contrastive
from model.objectives import pretraining_outputs
from model.reserve import MerlotReserve, parameter_shapes
from shards.reading.pretraining import PretrainingParser
from shards.reading.vocabulary import published
from shards.storage.errors import UsageError
from shards.tokens import MASK, MASKAUDIO
from tests.pretraining_batches import make_batch
from train import config, mesh, step
from train.configs import PRESETS
from train.metrics import accuracy, example_mask

ROOT = Path(__file__).parent.parent.parent

MESHES = [(1, 1, 1, 1), (8, 2, 2, 2)]
"""Devices, then data, fsdp and tensor."""

QUICK_COMPILE = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"

ON_EVERY_MESH = "tests.programs.pretraining_on_meshes"


@pytest.fixture(scope="module")
def small():
    model = dataclasses.replace(TINY, segments=2, sequence_length=168, spans_to_include=2)
    optimizer = config.OptimizerConfig(total_steps=10, warmup_steps=1, moments="float32")
    return config.TrainConfig(model, optimizer, batch_size=4)


def test_same_loss_on_every_mesh(tmp_path, small):
    """One process with eight simulated devices runs three steps on each mesh."""
    np.savez(tmp_path / "batch.npz", **make_batch(small.model, 8))
    environment = os.environ | {"XLA_FLAGS": QUICK_COMPILE, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", ON_EVERY_MESH, str(tmp_path / "batch.npz"), json.dumps(MESHES)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    reference = found[str(MESHES[0])]
    assert reference[0][0] != reference[2][0]
    for name, losses in found.items():
        difference = np.abs(np.array(losses) / reference - 1).max(axis=0)
        # Adam turns rounding of gradients near zero into sign, so norms after an update agree less than losses.
        assert (difference <= [1e-5, 1e-3, 1e-5]).all(), (name, difference)


@pytest.fixture(scope="module")
def one_device(small):
    laid = mesh.make_mesh(small.mesh, jax.devices()[:1])
    return laid, step.make_step(small, laid)


def test_updates_that_are_not_finite_are_skipped_and_counted(small, one_device):
    laid, once = one_device
    good = make_batch(small.model, 4)
    bad = {**good, "images": np.full_like(good["images"], np.nan)}
    state = step.initial_state(small, laid)
    state, _ = once(state, good)
    before = jax.tree.map(np.array, (state.params, state.opt_state))
    for expected in (1, 2):
        state, metrics = once(state, bad)
        assert not np.isfinite(metrics["loss"])
        assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"])) == (expected, expected)
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.opt_state), before)
    assert int(state.step) == 3
    state, metrics = once(state, good)
    assert np.isfinite(metrics["loss"])
    assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"])) == (2, 0)
    assert not np.array_equal(state.params["head"]["kernel"], before[0]["head"]["kernel"])


def test_microbatches_contrast_the_whole_batch(small, one_device):
    """Two turns give the losses, the accuracies and the gradients of the batch in one."""
    laid, once = one_device
    batch = make_batch(small.model, 4)
    in_two = step.make_step(dataclasses.replace(small, microbatches=2), laid)
    found = []
    for run in (once, in_two):
        state, metrics = run(step.initial_state(small, laid), batch)
        # The first moment of a first step is a tenth of the gradient.
        found.append(jax.device_get((metrics, state.opt_state[0].mu)))
    whole, turns = found
    for name, value in whole[0].items():
        assert turns[0][name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    expected, gradients = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(mu)]) for _, mu in found)
    # Rounding: 2e-5 is seen in float32, and 3e-6 for a network that computes in float64.
    assert np.linalg.norm(gradients - expected) <= 2e-4 * np.linalg.norm(expected)


def test_groups_give_the_pairs_of_the_whole_batch(small):
    """Without random choices, the forward with a key per example and in two turns is the plain one."""
    model = dataclasses.replace(small.model, context_split_probability=0.0)
    params = step.initial_state(small, mesh.make_mesh(small.mesh, jax.devices()[:1])).params
    batch = {name: jnp.asarray(array) for name, array in make_batch(model, 4).items()}
    plain = jax.jit(lambda: pretraining_outputs(MerlotReserve(model), params, batch, jax.random.key(0)))()
    grouped = jax.jit(lambda: step.global_outputs(model, params, batch, jax.random.key(5), 2))()
    np.testing.assert_array_equal(grouped["stuff_to_span"]["_spans"], plain["stuff_to_span"]["_spans"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grouped, plain)
    np.testing.assert_allclose(contrastive(grouped)[0], contrastive(plain)[0], rtol=1e-5)


def test_published_span_groups(small):
    """With the published choice over groups, spans come from all examples of each group."""
    model = dataclasses.replace(small.model, span_choice="group", span_group=2, spans_to_include=1)
    params = step.initial_state(
        dataclasses.replace(small, model=model), mesh.make_mesh(small.mesh, jax.devices()[:1])
    ).params
    batch = make_batch(model, 4)
    batch["text_spans"][0] = 0
    outputs = jax.jit(lambda batch: step.global_outputs(model, params, batch, jax.random.key(0)))(batch)
    chosen = outputs["stuff_to_span"]["_spans"]
    examples = np.asarray(chosen) // model.spans_per_example
    assert examples[:2].tolist() == [1, 1]
    assert set(examples[2:].tolist()) <= {2, 3}


@pytest.mark.parametrize("rows_per_block", [8192, 3])
def test_accuracies_against_a_plain_computation(small, rows_per_block):
    """Vectors whose best partners are known: counted once more in NumPy, pair by pair."""
    model = small.model
    batch = make_batch(model, 4)
    rng = np.random.default_rng(1)
    pairs = {"imgs_to_audio": model.segments, "text_to_audio": model.targets, "stuff_to_span": model.spans_to_include}
    extras = model.audio_spans - model.targets
    outputs = {}
    for objective, count in pairs.items():
        y = rng.standard_normal((4 * count, 8))
        outputs[objective] = {"x": y + 1.5 * rng.standard_normal(y.shape), "y": y, "_valid": rng.random(len(y)) < 0.8}
    outputs["text_to_audio"]["y_extra"] = rng.standard_normal((4 * extras, 8))
    chosen = np.sort([e * model.spans_per_example + i for e in range(4) for i in range(model.spans_to_include)])
    outputs["stuff_to_span"]["_spans"] = chosen
    found = accuracy.accuracies(jax.tree.map(jnp.asarray, outputs), batch, model, rows_per_block)

    def video(example, sound):
        return example, int(batch["video_src_index"][example, sound // model.subsegments])

    def pointed(kind, pointer, token, row, example):
        (place,) = np.flatnonzero((batch[f"{kind}/{pointer}"][example, 0] == row) & (batch[kind][example, 0] == token))
        return place

    asked, others, of_spans = [], [], []
    for e in range(4):
        sounds = sorted(set(batch["text2audio/audio_ptr"][e, 0][batch["text2audio"][e, 0] == MASKAUDIO].tolist()))
        asked += [video(e, sound) for sound in sounds]
        others += [video(e, sound) for sound in range(model.audio_spans) if sound not in sounds]
    for span in chosen:
        e, row = divmod(int(span), model.spans_per_example)
        kind = "text2audio" if row < model.targets else "audio2text"
        place = pointed(kind, "text_ptr", MASK, row, e)
        of_spans.append(video(e, int(batch[f"{kind}/audio_ptr"][e, 0, place])))
    images = [video(e, s * model.subsegments) for e in range(4) for s in range(model.segments)]
    videos = {
        "imgs_to_audio": (images, images),
        "text_to_audio": (asked, asked + others),
        "stuff_to_span": (of_spans,) * 2,
    }
    for objective, (of_x, of_y) in videos.items():
        arrays = outputs[objective]
        keys = np.concatenate([arrays["y"], arrays.get("y_extra", np.zeros((0, 8)))])
        usable = np.concatenate([arrays["_valid"], np.ones(len(keys) - len(arrays["_valid"]), bool)])
        for name in ("", "_within_video"):
            right, chance = [], []
            for i in np.flatnonzero(arrays["_valid"]):
                among = [j for j in np.flatnonzero(usable) if not name or of_y[j] == of_x[i]]
                right.append(max(among, key=lambda j: arrays["x"][i] @ keys[j]) == i)
                chance.append(1 / len(among))
            assert float(found[f"accuracy{name}/{objective}"]) == pytest.approx(np.mean(right), abs=1e-6)
            assert float(found[f"chance{name}/{objective}"]) == pytest.approx(np.mean(chance), abs=1e-6)


def test_a_second_copy_of_a_record_takes_no_part(small):
    """A batch whose last example is the first one again has the loss of the batch without it."""
    model, params = (
        small.model,
        step.initial_state(small, mesh.make_mesh(config.MeshConfig(data=1), jax.devices()[:1])).params,
    )
    batch = make_batch(model, 4)
    twice = {name: np.concatenate([array[:3], array[:1]]) for name, array in batch.items()}
    marked = example_mask.copies(jnp.asarray(twice["record_digest"]))
    assert np.asarray(marked).tolist() == [False, False, False, True]
    assert not np.asarray(example_mask.copies(jnp.asarray(batch["record_digest"]))).any()

    @jax.jit
    def loss(batch):
        outputs = step.global_outputs(model, params, batch, jax.random.key(0))
        kept = ~example_mask.copies(batch["record_digest"])
        return contrastive(example_mask.only(outputs, kept, batch, model))[0]

    alone = {name: array[:3] for name, array in batch.items()}
    assert float(loss(twice)) == pytest.approx(float(loss(alone)), rel=1e-6)


def test_an_update_that_is_not_finite_is_left_out():
    """The loss and the gradient are finite, and the rate is not."""
    endless = optax.stateless(lambda gradients, params: jax.tree.map(lambda leaf: leaf * jnp.inf, gradients))
    zero = jnp.zeros((), jnp.int32)
    state = step.TrainState(zero, {"w": jnp.ones(3)}, endless.init({}), jnp.zeros(2, jnp.uint32), zero, zero)
    following, norm = step.advance(state, jnp.float32(1), {"w": jnp.ones(3)}, endless)
    assert np.isfinite(norm)
    assert following.params["w"].tolist() == [1, 1, 1]
    assert (int(following.skipped), int(following.skipped_in_a_row)) == (1, 1)


@pytest.mark.parametrize("scan", [False, True])
def test_every_large_parameter_is_split(scan):
    """On 8 devices split 4 by 2, what stays whole of the base model is below 1 %, scanned or not."""

    laid = SimpleNamespace(shape={"data": 1, "fsdp": 4, "tensor": 2})
    model = dataclasses.replace(BASE, scan_layers=scan)
    whole = total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameter_shapes(model)):
        spec = mesh.partition(laid, [key.key for key in path], leaf.shape)
        total += np.prod(leaf.shape)
        whole += 0 if any(spec) else np.prod(leaf.shape)
    assert whole < 0.01 * total


def test_an_axis_that_does_not_divide_leaves_the_dimension_whole():
    laid = SimpleNamespace(shape={"data": 1, "fsdp": 5, "tensor": 2})
    assert mesh.partition(laid, ["layer_00", "mlp_layer", "intermediate", "kernel"], (64, 256)) == PartitionSpec(
        None, "tensor"
    )
    assert mesh.partition(laid, ["contrastive_scales"], (3,)) == PartitionSpec()


def test_moments_lie_where_their_parameters_do(small):
    laid = mesh.make_mesh(small.mesh, jax.devices()[:1])
    shardings = mesh.state_shardings(laid, step.state_shapes(small))
    assert shardings.params == shardings.opt_state[0].mu == shardings.opt_state[0].nu


def test_meshes_and_batches_that_cannot_be_are_named():
    with pytest.raises(UsageError, match="data 3, fsdp 1 and tensor 1 does not fit 1 devices"):
        mesh.make_mesh(config.MeshConfig(data=3), jax.devices()[:1])
    with pytest.raises(UsageError, match=r"mesh\.fsdp is 0; it must be positive"):
        config.MeshConfig(fsdp=0)

    devices = np.array([SimpleNamespace(process_index=0)] * 4)
    laid = SimpleNamespace(shape={"data": 2, "fsdp": 2, "tensor": 1}, devices=devices)
    with pytest.raises(UsageError, match="batch_size 6 is not divisible by the 4 devices"):
        mesh.check_batch(laid, 6)
    with pytest.raises(UsageError, match="batch_size 8 cannot be cut in 4 microbatches on each of 4"):
        mesh.check_batch(laid, 8, 4)


def test_fitting_to_data():
    fitted = config.fit_to_data(PRESETS["tiny"], 512, 16).model
    assert (fitted.vocabulary_size, fitted.segments, fitted.groups, fitted.sequence_length) == (512, 16, 2, 384)
    assert config.fit_to_data(PRESETS["tiny"], 256, 8) is PRESETS["tiny"]
    with pytest.raises(UsageError, match="512 tokens and 8 segments per example and the model 32768 and 16"):
        config.fit_to_data(PRESETS["base"], 512, 8)
    with pytest.raises(UsageError, match="17 segments per example cannot be cut in 3 equal groups"):
        config.fit_to_data(PRESETS["tiny"], 512, 17)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_readers_that_fit(name):
    """Every preset's reader makes arrays of the shapes the model wants."""
    run = PRESETS[name]
    spec = PretrainingParser(run.reader(), published()).spec()
    for array, wanted in step.batch_shapes(run).items():
        assert (run.batch_size, *spec[array][0]) == wanted.shape, array
        assert spec[array][1] == wanted.dtype, array
    with pytest.raises(ConfigError):
        dataclasses.replace(run.model, grid=(3, 3))
