"""Small functions against golden numbers: coordinates, tables, pooling, normalisation, initialisation."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import objectives, rotary
from model.config import TINY
from model.reserve import unit_normalize
from model.transformer import gelu, kernel_init, kernel_initializer

FILE = "functions.npz"


def test_lines_and_planes(golden):
    file = golden(FILE)
    for name in file.under("get_rotary_coordinates/"):
        length, centred = (int(part.removeprefix("center").removeprefix("n")) for part in name.split("/"))
        file.check(f"get_rotary_coordinates/{name}", rotary.line(length, bool(centred)), 0)
    for name in file.under("get_rotary_coordinates_2d/"):
        file.check(f"get_rotary_coordinates_2d/{name}", rotary.plane(*map(int, name.split("x"))), 1e-6)


def test_first_and_last_patch_of_the_published_grid():
    patches = rotary.plane(12, 20)
    np.testing.assert_allclose(patches[0], (-6 / 21, -10 / 21), rtol=1e-6)
    np.testing.assert_allclose(patches[-1], (6 / 21, 10 / 21), rtol=1e-6)


def test_multimodal_coordinates(golden):
    file = golden(FILE)
    row, column, segment, token = (
        jnp.asarray(file[f"mm_coords/in/{name}"]) for name in ("h", "w", "segment_idx", "token_idx")
    )
    file.check("mm_coords/out_all", rotary.multimodal(row, column, segment, token))
    file.check("mm_coords/out_text", rotary.multimodal(segment=segment, token=token))
    file.check("mm_coords/out_vis", rotary.multimodal(row, column, segment))
    file.check("mm_coords/out_token_only", rotary.multimodal(token=token))


@pytest.mark.parametrize("axes", [1, 2, 4])
@pytest.mark.parametrize("size", [32, 16])
def test_angles(golden, axes, size):
    file = golden(FILE)
    theta = rotary.angles(jnp.asarray(file[f"sinusoids/nd{axes}/coords"]), size)
    twice = jnp.repeat(theta, 2, axis=-1)
    file.check(f"sinusoids/nd{axes}/out{size}", jnp.stack([jnp.cos(twice), jnp.sin(twice)], axis=1))


@pytest.mark.parametrize("form", ["published", "parity"])
@pytest.mark.parametrize("case", ["nd1", "nd2", "nd4", "broadcast"])
def test_published_scaling_of_queries_and_keys(golden, case, form):
    file = golden(FILE)
    coordinates = file["apply_rotary/broadcast/coords"] if case == "broadcast" else file[f"sinusoids/{case}/coords"]
    table = rotary.table(jnp.asarray(coordinates), 32, 64, form)
    file.check(f"apply_rotary/{case}/out", table.apply(jnp.asarray(file[f"apply_rotary/{case}/qk"])))


def test_published_factors_of_a_joint_text_token():
    coordinates = rotary.multimodal(segment=jnp.asarray([1.0]), token=jnp.asarray([1.0]))
    factors = np.asarray(rotary.table(coordinates, 32, 64).own)[0, 0]
    even = [-1] * 8 + [-0.785695, -0.614682, -0.296561, 0.275899, -0.996927, -0.994740, -0.990989, -0.984543]
    odd = [1] * 8 + [1.175876, 1.273643, 1.382769, 1.387040, 1.003063, 1.005232, 1.008930, 1.015222]
    np.testing.assert_allclose(factors[0:32:2], even, atol=1e-6)
    np.testing.assert_allclose(factors[1:32:2], odd, atol=1e-6)
    np.testing.assert_array_equal(factors[32:], 1)


def test_a_zero_coordinate_alternates_signs():
    factors = np.asarray(rotary.table(jnp.zeros((1, 2)), 32, 64).own)[0, 0, :32]
    np.testing.assert_array_equal(factors, np.tile([-1, 1], 16))


def test_standard_rotation_depends_on_distance_only():
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.standard_normal((1, 1, 64)), jnp.float32) for _ in range(2))

    def product(a, b):
        rotate = [rotary.table(jnp.full((1, 1), at), 32, 64, "standard") for at in (a, b)]
        return float((rotate[0].apply(query) * rotate[1].apply(key)).sum())

    assert product(0.1, 0.4) == pytest.approx(product(0.5, 0.8), abs=1e-4)
    assert product(0.1, 0.4) != pytest.approx(product(0.1, 0.6), abs=1e-3)
    turned = rotary.table(jnp.full((1, 1), 0.3), 32, 64, "standard").apply(query)
    assert float((turned**2).sum()) == pytest.approx(float((query**2).sum()), rel=1e-5)


def test_one_hot_pool(golden):
    file = golden(FILE)
    do_pool, idx, v = (jnp.asarray(file[f"one_hot_pool/{name}"]) for name in ("do_pool", "idx", "v"))
    x, weights = objectives.one_hot_pool(do_pool, idx, v, 6)
    file.check("one_hot_pool/out_x", x)
    file.check("one_hot_pool/out_idx_oh", weights, 0)
    x, weights = objectives.one_hot_pool(do_pool, idx, v, 6, real_bsize=2)
    file.check("one_hot_pool/real_bsize2_out_x", x)
    file.check("one_hot_pool/real_bsize2_out_idx_oh", weights, 0)


def test_unit_normalize(golden):
    file = golden(FILE)
    file.check("unit_normalize/out", unit_normalize(jnp.asarray(file["unit_normalize/in"])))
    ours = unit_normalize(jnp.asarray(file["unit_normalize/in_bf16"], jnp.bfloat16))
    file.check("unit_normalize/out_bf16", ours.astype(jnp.float32), 2**-8)
    np.testing.assert_array_equal(unit_normalize(jnp.zeros(4)), 0)
    np.testing.assert_allclose(unit_normalize(jnp.asarray([3.0, 4.0])), (0.5999999, 0.7999998), atol=1e-6)


def test_gelu(golden):
    file = golden(FILE)
    file.check("gelu/out", gelu(jnp.asarray(file["gelu/in"])))


def test_layers_of_a_narrow_model_pass_on_what_they_get():
    x = jax.random.normal(jax.random.PRNGKey(0), (512, TINY.hidden_size))
    kernels = [
        kernel_initializer(replace(TINY, initialization=name))(jax.random.PRNGKey(1), (TINY.hidden_size, 256))
        for name in ("fan_in", "published")
    ]
    kept, lost = (float((x @ kernel).std()) for kernel in kernels)
    assert kept == pytest.approx(1, rel=0.05)
    assert lost == pytest.approx(0.02 / 2**0.5 * 0.88 * TINY.hidden_size**0.5, rel=0.05)


def test_kernel_init(golden, golden_table):
    file = golden(FILE)
    file.check("kernel_init/key0_shape_6x5", kernel_init(jax.random.PRNGKey(0), (6, 5)))
    factors = golden_table("kernel_init.json")["multiplier_applied_to_truncated_normal(-2,2)"]
    for shape in ((768, 3072), (3072, 768), (2, 65, 128), (1273, 4)):
        flat = (int(np.prod(shape[:-1])), shape[-1])
        drawn = jax.random.truncated_normal(jax.random.PRNGKey(3), -2, 2, flat) * factors[str(shape)]
        np.testing.assert_allclose(kernel_init(jax.random.PRNGKey(3), flat), drawn, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("case", "probability"), [("prob0.9", 0.9), ("probdefault0.1", 0.1)])
def test_context_split(golden, seed, case, probability):
    file = golden(FILE)
    sources = jnp.asarray(file["augment/video_src_idx"])
    ours = objectives.split_context(jax.random.PRNGKey(seed), sources, probability)
    file.check(f"augment/{case}/PRNGKey{seed}", ours, 0)
    file.check("augment/L1_unchanged", objectives.split_context(jax.random.PRNGKey(seed), sources[:, :1], 0.9), 0)
