"""bfloat16 beside float32: one step at the depth of the base model, and what the tiny recipe learns."""

import dataclasses

import jax
import numpy as np
import pytest

from model.config import BASE, TINY
from model.losses import contrastive
from model.objectives import pretraining_outputs
from model.reserve import MerlotReserve, initial_parameters
from tests.pretraining_batches import make_batch
from train import mesh, step
from train.configs.tiny import CONFIG as TINY_RUN

DEEP = dataclasses.replace(
    TINY,
    vision_layers=24,
    audio_layers=BASE.audio_layers,
    span_layers=BASE.span_layers,
    joint_layers=BASE.joint_layers,
    segments=2,
    sequence_length=168,
    spans_to_include=2,
    rotary=BASE.rotary,
    context_split_probability=0.0,
    scan_layers=True,
)
"""As deep as base, with large's images, and narrow."""


def cosine(a, b):
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(scope="module")
def both():
    """The loss, the outputs and the gradients of the same parameters and batch in either dtype."""
    params = jax.jit(initial_parameters, static_argnums=0)(DEEP, jax.random.key(0))
    batch = make_batch(DEEP, 4)

    def run(dtype):
        module = MerlotReserve(dataclasses.replace(DEEP, dtype=dtype))

        def loss(params):
            outputs = pretraining_outputs(module, params, batch, jax.random.key(3))
            return contrastive(outputs)[0], outputs

        (total, outputs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return float(total), outputs, gradients

    return run("float32"), run("bfloat16")


def test_outputs_and_losses_at_depth(both):
    """52 layers of rounding to 8 bits turn a vector by about a degree, a cosine of 0.9998."""
    (expected, exact, _), (found, rounded, _) = both
    assert found == pytest.approx(expected, rel=0.005)
    for objective, arrays in exact.items():
        for name in ("x", "y"):
            assert cosine(arrays[name], rounded[objective][name]).min() > 0.9995, (objective, name)


def test_gradients_at_depth(both):
    (_, _, exact), (_, _, rounded) = both
    flat, near = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (exact, rounded))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(rounded))
    assert np.linalg.norm(flat - near) < 0.05 * np.linalg.norm(flat)
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(exact), jax.tree.leaves(rounded), strict=True):
        if np.linalg.norm(leaf) > 1e-3 * np.linalg.norm(flat):
            assert cosine(np.ravel(leaf), np.ravel(other)) > 0.997, jax.tree_util.keystr(path)


def test_the_tiny_recipe_learns_as_much():
    """300 steps over eight batches that can be learnt by heart: the losses of the last ones agree."""
    model = dataclasses.replace(TINY, segments=2, sequence_length=168, spans_to_include=2)
    batches = [make_batch(model, TINY_RUN.batch_size, seed) for seed in range(8)]
    mean = {}
    for dtype in ("float32", "bfloat16"):
        run = dataclasses.replace(TINY_RUN, model=dataclasses.replace(model, dtype=dtype))
        laid = mesh.make_mesh(run.mesh, jax.devices()[:1])
        state, once, losses = step.initial_state(run, laid), step.make_step(run, laid), []
        for number in range(300):
            state, metrics = once(state, batches[number % len(batches)])
            losses.append(metrics["loss"])
        mean[dtype] = float(np.mean(jax.device_get(losses[-32:])))
        assert mean[dtype] < 0.7 * losses[0]
    assert mean["bfloat16"] == pytest.approx(mean["float32"], rel=0.02)
