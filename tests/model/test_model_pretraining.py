"""The pretraining forward, its losses and its gradients against golden numbers, and its random choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import losses, objectives
from model.attention import attention_mask
from model.reserve import InputError, MerlotReserve

KEY = jax.random.key(7)


def _loss_of(config):
    module = MerlotReserve(config)

    def loss(params, batch, rng):
        outputs = objectives.pretraining_outputs(module, params, batch, rng)
        total, info = losses.contrastive(outputs)
        return total, (info, outputs)

    return loss


@pytest.fixture(scope="module")
def batch(golden):
    return {name: jnp.asarray(array) for name, array in golden("pretrain_batch.npz").arrays.items()}


@pytest.fixture(scope="module")
def neutral(make_config):
    """Loss, parts, outputs and gradients of the neutral variant, compiled once."""
    return jax.jit(jax.value_and_grad(_loss_of(make_config("tiny_neutral")), has_aux=True))


def _check_outputs(file, outputs, prefix="out/", spans="canonical/stuff_to_span/"):
    for objective in ("imgs_to_audio", "text_to_audio"):
        for name in file.under(f"{prefix}{objective}/"):
            file.check(f"{prefix}{objective}/{name}", outputs[objective][name])
    for name in ("x", "y"):
        file.check(f"{spans}{name}", outputs["stuff_to_span"][name])
    file.check(f"{spans}_sources", outputs["stuff_to_span"]["_sources"], 0)


def _check_losses(file, total, info):
    file.check("loss", total)
    for name in file.under("loss_info/"):
        file.check(f"loss_info/{name}", info[name])


@pytest.fixture(scope="module")
def neutral_result(neutral, params, batch):
    return neutral(params, batch, KEY)


def test_neutral_outputs_and_losses(golden, neutral_result):
    (total, (info, outputs)), _ = neutral_result
    file = golden("pretrain_neutral.npz")
    _check_outputs(file, outputs)
    _check_losses(file, total, info)


def test_gradients(golden, neutral_result, params, leaf_paths):
    (total, _), gradients = neutral_result
    file = golden("optim_pretrain.npz")
    file.check("loss", total)
    ours = leaf_paths(gradients)
    weights = leaf_paths(params)
    largest = max(float(value) for value in file.under("grad_l2/").values())
    file.check_norms("grad_l2/", ours)
    for path, expected in file.under("grad_dot_param/").items():
        dot = np.vdot(np.asarray(ours[path], np.float64), weights[path])
        assert abs(dot - expected) < 1e-4 * largest, path
    for path in file.under("grad_full/"):
        file.check(f"grad_full/{path}", ours[path], 1e-4)
    for path, expected in file.under("grad/").items():
        slices = tuple(slice(0, size) for size in expected.shape)
        file.check(f"grad/{path}", ours[path][slices], 1e-4)
    rows = np.linalg.norm(ours["token_encoder/Embed_0/embedding"], axis=-1)
    file.check("embed_grad/l2_per_used_row", rows[file["embed_grad/used_rows"]], 1e-4)
    assert (rows > 0).sum() == file["embed_grad/num_nonzero_rows_total"]


def test_other_scales(golden, neutral, params, batch):
    file = golden("pretrain_neutral_other_scales.npz")
    scales = jnp.asarray(file["contrastive_scales"])
    (total, (info, outputs)), gradients = neutral({**params, "contrastive_scales": scales}, batch, KEY)
    _check_outputs(file, outputs)
    _check_losses(file, total, info)
    assert float(gradients["contrastive_scales"][2]) == 0, "the scale is clipped, so it has no gradient"


def test_inputs_of_the_joint_transformer(golden, params, batch, make_config):
    file = golden("pretrain_neutral.npz")
    seen = {}

    class Watching(MerlotReserve):
        def joint(self, inputs):
            seen["inputs"] = inputs
            return super().joint(inputs)

    def watch(params, batch):
        objectives.pretraining_outputs(Watching(make_config("tiny_neutral")), params, batch, KEY)
        return seen.pop("inputs")

    inputs = jax.jit(watch)(params, batch)
    # The golden rows are ordered by kind, then example; ours by example, then kind.
    examples = len(batch["images"])
    sizes = [examples * batch[kind].shape[1] for kind in objectives.KINDS]
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    ours = np.argsort(np.concatenate([part.reshape(examples, -1) for part in parts], axis=1).reshape(-1))
    file.check("aux/joint_in_x", inputs.x[ours])
    file.check("aux/joint_in_rotary_coords", inputs.coordinates[ours])
    file.check("aux/joint_in_attention_mask", attention_mask(inputs.segment_ids[ours]), 0)


def test_several_sequences_of_each_kind(golden, params, make_config):
    file = golden("pretrain_multiseq_neutral.npz")
    batch = {name: jnp.asarray(array) for name, array in file.under("batch/").items()}
    total, (info, outputs) = jax.jit(_loss_of(make_config("tiny_multiseq_neutral")))(params, batch, KEY)
    _check_outputs(file, outputs)
    _check_losses(file, total, info)


@pytest.fixture(scope="module")
def published_choice(make_config):
    """Loss, parts and outputs with the published random choices, compiled once."""
    return jax.jit(_loss_of(make_config(span_choice="group")))


def test_published_random_choices(golden, params, batch, published_choice):
    """With the published key and the choice over the group, the same spans are chosen."""
    file = golden("pretrain_default_prng.npz")
    total, (info, outputs) = published_choice(params, batch, jnp.asarray(file["aux/prng_0"]))
    order = np.argsort(file["aux/span_best_idxs"])
    np.testing.assert_array_equal(outputs["stuff_to_span"]["_spans"], file["aux/span_best_idxs"][order])
    for objective in ("imgs_to_audio", "text_to_audio"):
        for name in file.under(f"out/{objective}/"):
            file.check(f"out/{objective}/{name}", outputs[objective][name])
    for name in ("x", "y", "_sources"):
        expected = file[f"out/stuff_to_span/{name}"][order]
        file.check(f"out/stuff_to_span/{name}", outputs["stuff_to_span"][name], expected=expected)
    _check_losses(file, total, info)


def test_loss_does_not_depend_on_how_examples_are_grouped(golden, neutral_result, leaf_paths):
    file = golden("pretrain_2devices.npz")
    (total, (info, _)), gradients = neutral_result
    file.check_norms("tiny_neutral/pmean_grad_l2/", leaf_paths(gradients))
    file.check("tiny_neutral/pmean/loss", total)
    for name in ("imgs_to_audio", "text_to_audio", "stuff_to_span"):
        file.check(f"tiny_neutral/pmean/{name}", info[name])


def test_span_choice_prefers_the_video_four_to_one(make_config):
    """Gumbel noise plus log 4 draws without replacement with odds 4 to 1 for the first span kept."""
    config = make_config(spans_to_include=1)
    valid = jnp.ones((20_000, 5), bool).at[:, 4].set(False)
    multimodal = jnp.zeros((20_000, 5)).at[:, 0].set(1)
    chosen = np.asarray(objectives.choose_spans(KEY, valid, multimodal, config)) % 5
    shares = np.bincount(chosen, minlength=5) / len(chosen)
    np.testing.assert_allclose(shares, [4 / 7, 1 / 7, 1 / 7, 1 / 7, 0], atol=0.015)


def test_span_choice_by_example_and_by_group(make_config):
    valid = jnp.zeros((4, 6), bool).at[::2].set(True)
    count = jnp.zeros((4, 6))
    per_example = objectives.choose_spans(KEY, valid, count, make_config(spans_to_include=3))
    assert np.bincount(np.asarray(per_example) // 6, minlength=4).tolist() == [3, 3, 3, 3]
    grouped = make_config(spans_to_include=3, span_choice="group")
    in_groups = objectives.choose_spans(KEY, valid, count, grouped)
    assert np.bincount(np.asarray(in_groups) // 6, minlength=4).tolist() == [6, 0, 6, 0]
    with pytest.raises(InputError, match="3 examples are no whole groups of 2"):
        objectives.choose_spans(KEY, valid[:3], count[:3], grouped)


def test_context_is_split_as_often_as_asked():
    sources = jnp.zeros((40_000, 8), jnp.int32)
    split = np.asarray(objectives.split_context(KEY, sources, 0.35))
    starts = np.where(split.any(axis=1), split.argmax(axis=1), 8)
    shares = np.bincount(starts, minlength=9) / len(starts)
    np.testing.assert_allclose(shares, [0, *[0.05] * 7, 0.65], atol=0.006)
    assert set(np.unique(split)) == {0, 32}


def test_keys_decide_alone(params, batch, published_choice):
    keys = [jax.random.key_data(jax.random.key(seed)) for seed in (0, 0, 1)]
    first, again, other = (published_choice(params, batch, key)[1][1] for key in keys)
    np.testing.assert_array_equal(first["stuff_to_span"]["_spans"], again["stuff_to_span"]["_spans"])
    assert (first["stuff_to_span"]["_spans"] != other["stuff_to_span"]["_spans"]).any()


@pytest.fixture(scope="module")
def blind(make_config, batch):
    """A model that neither sees nor reads random text, its compiled loss, and the batch without random text."""
    config = make_config(
        "tiny_neutral", random_text_sequences=0, random_text_spans=0, spans_to_include=6, use_vision=False
    )
    small = {name: array for name, array in batch.items() if not name.startswith("random_text")}
    small["text_spans"] = batch["text_spans"][:, :6]
    return config, jax.jit(_loss_of(config)), small


def test_random_text_may_be_absent(params, blind):
    config, forward, small = blind
    total, (info, outputs) = forward(params, small, KEY)
    assert np.isfinite(total)
    assert outputs["stuff_to_span"]["x"].shape == (12, config.hidden_size)
    assert float(info["_stuff_to_span_from_random_text"]) == 0


def test_invalid_pairs_leave_the_losses(golden, params, batch, make_config):
    """Masking a pair gives the loss of the pairs that are left; the golden batch has one empty span."""
    config = make_config("tiny_neutral", mask_invalid_pairs=True)
    total, (info, outputs) = jax.jit(_loss_of(config))(params, batch, KEY)
    spans = outputs["stuff_to_span"]
    kept = np.asarray(spans["_valid"])
    assert kept.sum() == len(kept) - 1
    assert float(info["_stuff_to_span_invalid"]) == 1
    left = {"stuff_to_span": {name: spans[name][kept] for name in ("x", "y", "_sources")}}
    alone, alone_info = losses.contrastive(left)
    assert float(info["stuff_to_span"]) == pytest.approx(float(alone), rel=1e-6)
    name = "_stuff_to_span_from_text2audio"
    assert float(info[name]) == pytest.approx(float(alone_info[name]), rel=1e-6)
    assert np.isfinite(total)


def _pairs(count, extras=0, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {name: jnp.asarray(rng.standard_normal((count, 16)), jnp.float32) for name in ("x", "y")}
    if extras:
        arrays["y_extra"] = jnp.asarray(rng.standard_normal((extras, 16)), jnp.float32)
    return arrays


def test_blocks_of_rows_give_the_same_loss_and_gradients():
    valid = jnp.arange(37) % 5 > 0

    def loss(vectors, block):
        return losses.contrastive({"text_to_audio": {**vectors, "_valid": valid}}, rows_per_block=block)[0]

    run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    whole, blocks = (run(_pairs(37, 11), block) for block in (64, 8))
    np.testing.assert_allclose(whole[0], blocks[0], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole[1], blocks[1])


def test_equal_similarities_give_the_log_of_the_targets():
    zeros = {name: jnp.zeros((8, 4)) for name in ("x", "y")}
    total, _ = losses.contrastive({"text_to_audio": {**zeros, "y_extra": jnp.zeros((24, 4))}})
    assert float(total) == pytest.approx((np.log(32) + np.log(8)) / 2, rel=1e-6)


def test_equal_spans_can_leave_the_denominator():
    arrays = _pairs(4)
    arrays["_tokens"] = jnp.asarray([[5, 6], [7, 8], [5, 6], [6, 5]])
    _, info = losses.contrastive({"stuff_to_span": arrays}, mask_equal_spans=True)
    logits = np.array(arrays["x"] @ arrays["y"].T)
    logits[0, 2] = logits[2, 0] = -np.inf
    expected = [np.mean(np.log(np.exp(m).sum(1)) - np.diag(logits)) for m in (logits, logits.T)]
    assert float(info["stuff_to_span"]) == pytest.approx(np.mean(expected), rel=1e-5)


def test_parity_products_are_bfloat16():
    arrays = {name: (array * 3).astype(jnp.bfloat16) for name, array in _pairs(32).items()}
    exact, rounded = (float(losses.contrastive({"a": arrays}, parity=p)[0]) for p in (False, True))
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.05)


def test_bfloat16_and_parity_stay_close_to_float32(params, batch, neutral_result, make_config):
    (total, _), _ = neutral_result
    for parity in (False, True):
        config = make_config("tiny_neutral", dtype="bfloat16", parity=parity)
        ours, (_, outputs) = jax.jit(_loss_of(config))(params, batch, KEY)
        assert outputs["imgs_to_audio"]["x"].dtype == jnp.bfloat16
        assert float(ours) == pytest.approx(float(total), rel=0.02)


def test_no_vision_hides_the_images_from_the_joint_model(params, blind):
    _, forward, small = blind
    other = {**small, "images": small["images"][:, ::-1]}
    first, second = (forward(params, b, KEY)[1][1] for b in (small, other))
    np.testing.assert_allclose(first["text_to_audio"]["x"], second["text_to_audio"]["x"], atol=1e-6)
    assert np.abs(first["imgs_to_audio"]["y"] - second["imgs_to_audio"]["y"]).max() > 1e-3


def test_batches_that_do_not_fit_are_named(params, batch, config):
    module = MerlotReserve(config)
    broken = {name: array for name, array in batch.items() if name not in ("images", "text2audio")}
    with pytest.raises(InputError, match="no images, text2audio"):
        objectives.pretraining_outputs(module, params, broken, KEY)
    with pytest.raises(InputError, match=r"batch\['images'\] has shape \(2, 90, 768\); the model needs \(2, 96, 768\)"):
        objectives.pretraining_outputs(module, params, {**batch, "images": batch["images"][:, :90]}, KEY)
