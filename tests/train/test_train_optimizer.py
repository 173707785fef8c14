"""Schedules, both Adams, decay masks and whole optimizer steps against golden numbers and the acceptance checks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoints import DROPPED_BY_TASK
from model.config import BASE, LARGE, TINY
from model.losses import contrastive
from model.objectives import pretraining_outputs
from model.reserve import MerlotReserve, parameter_shapes
from model.transformer import stack_layers
from shards.storage.errors import UsageError
from shards.tokens import MASK
from tests.golden_arrays import under
from train import optimizer
from train.config import OptimizerConfig

FILE = "optim_full.npz"
GOLDEN_STEPS = OptimizerConfig(learning_rate=4e-4, total_steps=10, warmup_steps=2)
NOISE = 1e-4
ADAMS = {
    "bf16_nobias": optimizer.scale_by_compact_adam(0.9, 0.98, 1e-6, False),
    "bf16_bias": optimizer.scale_by_compact_adam(0.9, 0.98, 1e-6, True),
    "f32_bias": optimizer.scale_by_float32_adam(0.9, 0.98, 1e-6, True),
}


@pytest.mark.parametrize(("warmup", "total"), [(2, 10), (3, 7)])
def test_schedules(golden, warmup, total):
    arrays, steps = golden(FILE), jnp.arange(13)
    cosine = jax.vmap(optimizer.cosine_schedule(warmup, total, 0.02))(steps)
    linear = jax.vmap(optimizer.linear_schedule(warmup, total))(steps)
    np.testing.assert_allclose(cosine, arrays[f"sched/pretrain_cosine_w{warmup}_n{total}_final0.02"], atol=1e-6)
    np.testing.assert_allclose(linear, arrays[f"sched/finetune_linear_w{warmup}_n{total}"], atol=1e-6)


def test_published_rates():
    """The table of docs/spec/training.md 1.4 and the adaptation's of 15."""
    scale = optimizer.pretraining_schedule(OptimizerConfig())
    steps = (0, 1, 1875, 3750, 75_596, 376_875, 750_001, 900_000)
    expected = [0, 2.6667e-4, 0.5, 1, 0.977757, 0.510001, 0.02, 0.02]
    np.testing.assert_allclose([scale(step) for step in steps], expected, atol=1e-6)
    adaptation = optimizer.cosine_schedule(15_000, 75_000, 0.0)
    np.testing.assert_allclose([adaptation(s) for s in (7_500, 15_000, 45_000)], [0.5, 1, 0.500013], atol=1e-6)


def test_no_warmup_and_a_constant_rate():
    scale = optimizer.cosine_schedule(0, 10, 1.0)
    np.testing.assert_array_equal([scale(step) for step in range(12)], np.ones(12))


def test_second_moment_code(golden):
    arrays = golden(FILE)
    moments = arrays["bf16adam/nu_in"]
    codes = jax.jit(optimizer.encode_second_moment)(moments)
    assert codes.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(codes, np.float32), arrays["bf16adam/encode_jit"])
    decoded = jax.jit(optimizer.decode_second_moment)(codes)
    np.testing.assert_allclose(decoded, arrays["bf16adam/decode_jit"], rtol=1e-6)
    bits = arrays["bf16adam/decode_all_bits_in"].view(jnp.bfloat16)
    every = jax.jit(optimizer.decode_second_moment)(bits)
    np.testing.assert_allclose(every, arrays["bf16adam/decode_all_bits_out"], rtol=1e-6, atol=1e-15)


@settings(deadline=None)
@given(st.floats(2.0**-26, 1.0, width=32))
def test_round_trip_of_the_second_moment(value):
    decoded = float(optimizer.decode_second_moment(optimizer.encode_second_moment(jnp.float32(value))))
    assert abs(decoded - value) < 1.4e-3 * value


@pytest.mark.parametrize("name", ADAMS)
def test_adam_sequence(golden, name):
    arrays, adam = golden(FILE), ADAMS[name]
    gradients = [{leaf: arrays[f"adam_seq/grad{i}/{leaf}"] for leaf in "wb"} for i in range(4)]
    state = adam.init(gradients[0])
    for i, gradient in enumerate(gradients):
        updates, state = jax.jit(adam.update)(gradient, state)
        for leaf in "wb":
            expected = under(arrays, f"adam_seq/{name}/jit/step{i}/")
            np.testing.assert_allclose(updates[leaf], expected[f"update/{leaf}"], rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(
                np.asarray(state.mu[leaf], np.float32), expected[f"mu/{leaf}"], rtol=1e-6, atol=1e-9
            )
            np.testing.assert_allclose(
                np.asarray(state.nu[leaf], np.float32), expected[f"nu/{leaf}"], rtol=1e-6, atol=1e-20
            )


@pytest.mark.parametrize("moments", ["bfloat16", "float32"])
@pytest.mark.parametrize(("bias_correction", "size"), [(False, 0.1 / 0.02**0.5), (True, 1.0)])
def test_first_update_has_a_known_size(moments, bias_correction, size):
    config = OptimizerConfig(
        learning_rate=1.0, warmup_steps=0, weight_decay=0.0, bias_correction=bias_correction, moments=moments
    )
    chain = optimizer.pretraining_optimizer(config)
    params = {"w": jnp.zeros((3, 2))}
    updates, _ = chain.update({"w": jnp.full((3, 2), -0.5)}, chain.init(params), params)
    np.testing.assert_allclose(updates["w"], size, rtol=2e-5)


@pytest.mark.parametrize(("config", "decayed"), [(BASE, 316_145_664), (LARGE, 852_566_016)])
def test_pretraining_decay_by_count(config, decayed):
    shapes = parameter_shapes(config)
    assert _count(shapes, optimizer.pretraining_decay_mask(shapes)) == decayed
    scanned = parameter_shapes(dataclasses.replace(config, scan_layers=True))
    assert _count(scanned, optimizer.pretraining_decay_mask(scanned)) == decayed


def test_finetuning_decays_kernels_only(leaf_paths):
    shapes = {**parameter_shapes(BASE), "proj": {"kernel": jax.ShapeDtypeStruct((BASE.hidden_size, 1), np.float32)}}
    mask = leaf_paths(optimizer.finetuning_decay_mask(shapes))
    assert not mask["proj/kernel"]
    assert {path.rsplit("/", 1)[-1] for path, decayed in mask.items() if decayed} == {"kernel", "embedding"}


def _count(shapes, mask):
    return sum(
        np.prod(leaf.shape)
        for leaf, decayed in zip(jax.tree.leaves(shapes), jax.tree.leaves(mask), strict=True)
        if decayed
    )


@pytest.fixture(scope="module")
def gradients_of(golden, model_config):
    """Loss parts and gradients of the golden batch, compiled once."""
    batch = {name: jnp.asarray(array) for name, array in golden("pretrain_batch.npz").items()}

    def loss(params):
        return contrastive(pretraining_outputs(MerlotReserve(model_config), params, batch, jax.random.key(0)))

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize(
    ("name", "moments", "bias_correction"),
    [("bf16adam_nobias", "bfloat16", False), ("bf16adam_bias", "bfloat16", True), ("f32adam_bias", "float32", True)],
)
def test_three_pretraining_steps(golden, gradients_of, params, leaf_paths, name, moments, bias_correction):
    expected = under(golden(FILE), f"pretrain/{name}/")
    config = dataclasses.replace(GOLDEN_STEPS, moments=moments, bias_correction=bias_correction)
    chain, ours = optimizer.pretraining_optimizer(config), params
    state = chain.init(params)
    for i in (1, 2, 3):
        gradients, info = gradients_of(ours)
        for loss, value in under(expected, f"step{i}/loss_info/").items():
            np.testing.assert_allclose(info[loss], value, rtol=1e-5)
        updates, state = jax.jit(chain.update)(gradients, state, ours)
        ours = optax.apply_updates(ours, updates)
        _check_slices(leaf_paths(ours), under(expected, f"step{i}/params/"))
    adam = state[0]
    decode = (lambda nu: nu) if moments == "float32" else optimizer.decode_second_moment
    _check_moments(leaf_paths(adam.mu), under(expected, "step3/mu/"), lambda mu: mu)
    _check_moments(leaf_paths(adam.nu), under(expected, "step3/nu/"), decode)
    _check_way(leaf_paths(ours), leaf_paths(params), under(expected, "step3/delta_l2/"))


def _vcr(model, image, answers, projection):
    tokens = answers.reshape(-1, answers.shape[-1])
    vision = jnp.repeat(model.get_imgseq_only(image), 8, axis=0)
    hidden = model.joint(model.assemble(tokens, token_segment_idx=jnp.zeros_like(tokens), vision_input=vision))
    first = jnp.argmax(tokens == MASK, axis=1)
    return (hidden[jnp.arange(len(first)), first] @ projection)[:, 0].reshape(answers.shape[:3])


@pytest.mark.parametrize(("name", "moments"), [("f32adam_f32grads", "float32"), ("bf16adam_f32grads", "bfloat16")])
def test_three_finetuning_steps(golden, model_config, params, named_parameter, leaf_paths, name, moments):
    batch = under(golden("finetune.npz"), "vcr/batch/")
    start = {part: tree for part, tree in params.items() if part not in DROPPED_BY_TASK["vcr"]}
    start["proj"] = {"kernel": named_parameter("proj/kernel", (model_config.hidden_size, 1))}
    module = MerlotReserve(model_config)

    @jax.jit
    @jax.grad
    def gradients_of(params):
        arrays = (batch["image"], batch["answers"], params["proj"]["kernel"])
        logits = jax.nn.log_softmax(module.apply({"params": params}, *arrays, method=_vcr))
        return -jnp.take_along_axis(logits, batch["labels"][..., None], axis=-1).mean()

    expected, ours = under(golden(FILE), f"vcr/{name}/"), start
    chain = optimizer.finetuning_optimizer(dataclasses.replace(GOLDEN_STEPS, moments=moments), start)
    state = chain.init(start)
    for i in (1, 2, 3):
        updates, state = jax.jit(chain.update)(gradients_of(ours), state, ours)
        ours = optax.apply_updates(ours, updates)
        _check_slices(leaf_paths(ours), under(expected, f"step{i}/params/"))
    _check_way(leaf_paths(ours), leaf_paths(start), under(expected, "step3/delta_l2/"))


def _check_slices(ours, expected):
    """Almost all values agree; where a gradient is near zero, Adam turns rounding into sign."""
    assert expected
    for path, values in expected.items():
        mine = np.asarray(ours[path])[tuple(slice(0, size) for size in values.shape)]
        off = np.abs(mine - values) > 2e-5
        assert off.mean() < 0.005, path


def _check_moments(ours, expected, decode):
    assert expected
    for path, values in expected.items():
        mine = ours[path][tuple(slice(0, size) for size in values.shape)]
        mine, theirs = np.asarray(decode(mine), np.float32), np.asarray(decode(values))
        np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=1e-2 * np.abs(theirs).max(), err_msg=path)


def _check_way(ours, start, expected):
    """The length of the whole way of every tensor; where a gradient is zero but for rounding it is not known."""
    for path, length in expected.items():
        mine = np.linalg.norm(np.asarray(ours[path], np.float64) - start[path])
        if length < NOISE:
            assert mine < NOISE, path
        elif not path.endswith("seq_attnpool/key/bias"):
            np.testing.assert_allclose(mine, length, rtol=1e-3, err_msg=path)


def test_finetuning_without_gradients_stays_where_it_started(params):
    part = {"head": params["head"]}
    chain = optimizer.finetuning_optimizer(dataclasses.replace(GOLDEN_STEPS, learning_rate=1.0, warmup_steps=0), part)
    moved, state = part, chain.init(part)
    for _ in range(5):
        updates, state = chain.update(jax.tree.map(jnp.zeros_like, moved), state, moved)
        moved = optax.apply_updates(moved, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8), moved, part)
    assert not np.array_equal(moved["head"]["kernel"], part["head"]["kernel"])


def test_state_has_the_published_places():
    """Adam first and the schedule's count third, so that states can be exchanged (docs/spec/training.md 3.2)."""
    params = stack_layers(jax.tree.map(lambda s: jnp.zeros(s.shape), parameter_shapes(TINY)))
    state = optimizer.pretraining_optimizer(OptimizerConfig()).init(params)
    assert len(state) == 4
    assert {state[0].count.dtype, state[2].count.dtype} == {np.dtype(np.int32)}
    assert {leaf.dtype for leaf in jax.tree.leaves((state[0].mu, state[0].nu))} == {jnp.dtype(jnp.bfloat16)}


def test_optimizer_config_from_published(mapping):
    config = OptimizerConfig.from_published(mapping("tiny"))
    assert config == GOLDEN_STEPS
    assert OptimizerConfig.from_published(mapping("tiny")["optimizer"]) == config
    plain = {"learning_rate": 1e-3, "num_train_steps": 5, "num_warmup_steps": 1, "use_bfloat16_adam": False}
    assert OptimizerConfig.from_published(plain).moments == "float32"
    assert OptimizerConfig.from_published(plain).eps == 1e-8


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"clip_norm": 1.0}, "unknown keys: 'clip_norm'"),
        ({"adafactor": True}, "not implemented"),
        ({"use_bfloat16_weights": True}, "not implemented"),
        ({"num_warmup_steps": 11}, "warmup_steps is 11; it must be between 0 and the 10"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be above 0 and at most 100"),
    ],
)
def test_wrong_optimizers_are_named(mapping, change, sentence):
    with pytest.raises(UsageError, match=sentence):
        OptimizerConfig.from_published({"optimizer": mapping("tiny")["optimizer"] | change})
    with pytest.raises(UsageError, match="has no 'num_train_steps', 'num_warmup_steps'"):
        OptimizerConfig.from_published({"optimizer": {"learning_rate": 1e-3}})
