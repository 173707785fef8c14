"""Which attention a device gets, and that padding a sequence for it changes nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from model.attention import attend, for_platform, implementation, padded_length, prepare_mask
from model.config import BASE, TINY
from model.rotary import table
from model.transformer import Transformer

FAST = replace(BASE, dtype="bfloat16")


@pytest.mark.parametrize(
    ("platform", "expected"), [("cpu", "products"), ("gpu", "cudnn"), ("tpu", "fused"), ("x", "xla")]
)
def test_the_platform_decides_unless_the_configuration_does(platform, expected):
    assert for_platform(FAST, platform) == expected
    assert for_platform(replace(FAST, attention="xla"), platform) == "xla"


@pytest.mark.parametrize(
    ("config", "length", "expected", "padded"),
    [
        (replace(FAST, attention="cudnn"), 640, "cudnn", 640),
        (replace(FAST, attention="cudnn"), 241, "cudnn", 248),
        (replace(FAST, attention="cudnn", dtype="float32"), 241, "xla", 241),
        (replace(FAST, attention="cudnn", head_size=192), 241, "xla", 241),
        (replace(FAST, attention="fused"), 241, "fused", 256),
        (replace(FAST, attention="fused"), 31, "fused", 32),
        (replace(FAST, attention="fused"), 800, "xla", 800),
        (replace(TINY, attention="fused"), 241, "xla", 241),
        (replace(FAST, attention="fused", parity=True), 241, "products", 241),
        (FAST, 241, "products", 241),
    ],
)
def test_what_a_stack_uses_and_pads_to(config, length, expected, padded):
    chosen = implementation(config, 8, length)
    assert (chosen, padded_length(length, chosen)) == (expected, padded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_same_by_products_and_by_the_library(dtype, masked):
    config = replace(TINY, dtype=dtype)
    config = replace(config, hidden_size=3 * config.head_size)
    projected = jax.random.normal(jax.random.key(0), (2, 7, 9, config.head_size), dtype)
    positions = table(jnp.linspace(-1, 1, 7)[:, None], config.rotary_size, config.head_size)
    # The last token of the first row is padding, and the second row is two texts.
    mask = prepare_mask(jnp.asarray([[0] * 6 + [-1], [0] * 3 + [1] * 4]), "xla", dtype) if masked else None
    products, library = (
        np.asarray(attend(projected, positions, mask, config, chosen), np.float32) for chosen in ("products", "xla")
    )
    np.testing.assert_allclose(products, library, atol=1e-6 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("masked", [False, True])
def test_masked_padding_changes_no_output(masked):
    """A sequence of 17 and the same padded to 24 as cuDNN wants it."""
    stack = Transformer(TINY, layers=2)
    x = jax.random.normal(jax.random.key(1), (3, 17, TINY.hidden_size))
    places = jnp.linspace(-1, 1, 17)[:, None]
    ids = jnp.asarray([[0] * 17, [0] * 9 + [1] * 8, [0] * 12 + [-1] * 5]) if masked else jnp.zeros((3, 17), jnp.int32)
    params = stack.init(jax.random.key(2), x, places, ids)
    plain = stack.apply(params, x, places, ids if masked else None)
    padding = ((0, 0), (0, 7))
    longer = stack.apply(
        params,
        jnp.pad(x, (*padding, (0, 0)), constant_values=5.0),
        jnp.pad(places, ((0, 7), (0, 0))),
        jnp.pad(ids, padding, constant_values=-1),
    )
    np.testing.assert_allclose(longer[0], plain[0], rtol=1e-6, atol=1e-6)
    real = np.asarray(ids) >= 0
    np.testing.assert_allclose(longer[1][:, :17][real], plain[1][real], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "masked", "rotary"),
    [
        (130, False, "published"),
        (130, True, "published"),
        (130, True, "standard"),
        (30, False, "published"),
        (15, True, "published"),
    ],
)
def test_fused_attention_of_tpus_pads_and_agrees(length, masked, rotary):
    """The kernel for TPUs, interpreted: 130 tokens and a summary become 256, and short ones share a row of 128."""
    rows = 8
    x = jax.random.normal(jax.random.key(1), (rows, length, 128))
    places = jnp.linspace(-1, 1, length)[:, None]
    ids = None
    if masked:
        third = length // 3
        ids = jnp.asarray([[0] * length, [0] * third + [1] * third + [-1] * (length - 2 * third)] * (rows // 2))
    real = np.ones((rows, length), bool) if ids is None else np.asarray(ids) >= 0
    config = replace(TINY, rotary=rotary, hidden_size=128)
    plain = Transformer(config, layers=1)
    params = plain.init(jax.random.key(2), x, places, ids)

    def loss(params, stack):
        summary, sequence = stack.apply(params, x, places, ids)
        return (summary**2).sum() + (jnp.where(real[..., None], sequence, 0) ** 3).sum(), (summary, sequence)

    def run(stack):
        return jax.value_and_grad(loss, has_aux=True)(params, stack)

    (_, expected), expected_gradients = run(plain)
    # "True" is the plain interpreter; the other one calls back into Python and can stop for good on two cores.
    with pltpu.force_tpu_interpret_mode(True):
        (_, found), gradients = run(Transformer(replace(config, attention="fused"), layers=1))
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(np.asarray(found[1])[real], np.asarray(expected[1])[real], atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(b).max()), gradients, expected_gradients
    )
