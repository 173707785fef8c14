"""Published checkpoints: loading, verifying, exporting, downloading, and files that are none."""

import contextlib
import dataclasses
import functools
import http.server
import lzma
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import losses, objectives, published
from model.checkpoints import CheckpointError, decode, export
from model.config import BASE, DEFAULT_GRID, ConfigError, Remat
from model.reserve import InputError, MerlotReserve
from model.transformer import stack_layers, unstack_layers
from shards.storage.errors import UserError

FILE = "ckpt_expect.npz"
GRID = (4, 6)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, golden_folder):
    path = tmp_path_factory.mktemp("checkpoint") / "ckpt_3"
    path.write_bytes(lzma.decompress((golden_folder / "ckpt" / "no_optimizer" / "ckpt_3.xz").read_bytes()))
    return path


@pytest.fixture(scope="session")
def micro(make_config):
    return make_config("micro_checkpoint", context_split_probability=0.0, spans_to_include=14, mask_invalid_pairs=False)


@pytest.fixture(scope="session")
def loaded(checkpoint, micro):
    return published.load(checkpoint, config=micro)


@pytest.fixture(scope="session")
def batch(golden):
    return {name: jnp.asarray(array) for name, array in golden(FILE).under("batch/").items()}


def test_golden_checkpoint(golden, loaded, leaf_paths):
    file = golden(FILE)
    leaves = leaf_paths(loaded.params)
    assert set(file.under("params_sum/")) == set(leaves)
    for path, leaf in leaves.items():
        assert leaf.dtype == np.float32
        wide = np.asarray(leaf, np.float64)
        file.check(f"params_abs_sum/{path}", np.abs(wide).sum(), 1e-9)
        assert wide.sum() == pytest.approx(float(file[f"params_sum/{path}"]), abs=1e-6)
    file.check("head/kernel", loaded.params["head"]["kernel"], 0)
    file.check("contrastive_scales", loaded.params["contrastive_scales"], 0)


def test_forward_of_the_golden_checkpoint(golden, loaded, batch, micro):
    file = golden(FILE)
    run = jax.jit(functools.partial(objectives.pretraining_outputs, MerlotReserve(micro)))
    outputs = run(loaded.params, batch, jax.random.key(0))
    for objective in ("imgs_to_audio", "text_to_audio"):
        for name in file.under(f"forward_with_loaded_params/{objective}/"):
            file.check(f"forward_with_loaded_params/{objective}/{name}", outputs[objective][name])
    prefix = "forward_with_loaded_params/stuff_to_span/"
    for name in ("x", "y", "_sources"):
        expected = file[prefix + name]
        order = _matching_rows(expected, outputs["stuff_to_span"][name])
        file.check(prefix + name, np.asarray(outputs["stuff_to_span"][name])[order])


def _matching_rows(expected, ours):
    """Our row for each of theirs; their order depends on random bits."""
    if expected.ndim == 1:
        return np.argsort(np.asarray(ours), kind="stable")[np.argsort(np.argsort(expected, kind="stable"))]
    return np.abs(expected[:, None] - np.asarray(ours)[None]).sum(-1).argmin(axis=1)


def test_sizes_are_read_off_the_file(checkpoint, micro):
    model = published.load(checkpoint, grid=GRID)
    for name in ("hidden_size", "head_size", "vision_layers", "audio_layers", "span_layers", "joint_layers", "grid"):
        assert getattr(model.config, name) == getattr(micro, name), name
    assert model.config.dtype == "float32"
    assert published.load(checkpoint, grid=GRID, dtype="bfloat16").config.dtype == "bfloat16"


def test_a_folder_means_its_highest_step(checkpoint, tmp_path, micro):
    (tmp_path / "ckpt_3").write_bytes(checkpoint.read_bytes())
    (tmp_path / "ckpt_20").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"ckpt_20 \(0 bytes\) is truncated"):
        published.load(tmp_path, config=micro)
    (tmp_path / "ckpt_20").unlink()
    assert published.load(tmp_path, config=micro).config == micro


def test_export_is_read_back_bit_for_bit(loaded, tmp_path, micro, checkpoint):
    export(loaded.params, tmp_path / "ckpt_7", step=7)
    again = published.load(tmp_path / "ckpt_7", config=micro)
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)
    state = serialization.msgpack_restore((tmp_path / "ckpt_7").read_bytes())
    assert (state["step"], state["opt_state"]) == (7, None)
    original = serialization.msgpack_restore(checkpoint.read_bytes())
    jax.tree.map(np.testing.assert_array_equal, state["params"], original["params"])


def test_float32_export_keeps_every_bit(tmp_path, make_parameters, make_config):
    weights = make_parameters("micro_checkpoint")
    export(weights, tmp_path / "ckpt_1", dtype="float32")
    again = published.load(tmp_path / "ckpt_1", config=make_config("micro_checkpoint"))
    jax.tree.map(np.testing.assert_array_equal, again.params, weights)


def test_weights_too_large_for_float16_are_named(loaded, tmp_path):
    weights = {**loaded.params, "contrastive_scales": np.array([1, 2, 1e6], np.float32)}
    with pytest.raises(CheckpointError, match=r"contrastive_scales has values up to 1e\+06"):
        export(weights, tmp_path / "ckpt_1")
    assert not (tmp_path / "ckpt_1").exists()


def _image_loss(model_config, images, weights):
    run = functools.partial(MerlotReserve(model_config).apply, method="get_imgseq_only")
    return jnp.square(run({"params": weights}, images)).mean()


@pytest.fixture(scope="module")
def unrolled(params, config, golden):
    """Images, the weights of their encoder, and the loss and gradients of the model without loops."""
    images = golden("api.npz")["in/images"][0]
    weights = {"vision_encoder": params["vision_encoder"], "contrastive_scales": params["contrastive_scales"]}
    return images, weights, jax.jit(jax.value_and_grad(functools.partial(_image_loss, config, images)))(weights)


@pytest.mark.parametrize(("remat", "unroll"), [("none", False), ("dots", False), ("full", False), ("dots", True)])
def test_scanned_layers_and_remat_give_the_same_numbers(unrolled, config, remat, unroll):
    """One parameter file serves both forms; what the backward pass recomputes changes nothing."""
    images, weights, plain = unrolled
    changed = dataclasses.replace(config, scan_layers=True, unroll_layers=unroll, remat=Remat(vision=remat))
    scanned = jax.jit(jax.value_and_grad(functools.partial(_image_loss, changed, images)))(stack_layers(weights))
    np.testing.assert_allclose(scanned[0], plain[0], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), unstack_layers(scanned[1]), plain[1])


def test_scanned_models_read_and_write_the_same_file(loaded, checkpoint, micro, tmp_path):
    scanned = published.load(checkpoint, config=dataclasses.replace(micro, scan_layers=True))
    assert "layers" in scanned.params["joint_transformer"]
    spans = np.array([[11, 12, 13] + [0] * 12])
    np.testing.assert_allclose(scanned.embed_text_spans_only(spans), loaded.embed_text_spans_only(spans), atol=1e-6)
    export(scanned.params, tmp_path / "ckpt_3", step=3)
    again = published.load(tmp_path / "ckpt_3", config=micro)
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)


def test_what_differs_is_named(loaded, micro, tmp_path):
    broken = {name: tree for name, tree in unstack_layers(loaded.params).items() if name != "head"}
    broken["span_encoder"] = {"transformer": {**broken["span_encoder"]["transformer"], "cls": np.zeros(7)}}
    broken["tail"] = {"kernel": np.zeros(2)}
    export(broken, tmp_path / "ckpt_1")
    message = (
        "2 missing: head/bias, head/kernel; 1 unknown: tail/kernel; "
        r"1 misshaped: span_encoder/transformer/cls \(7,\) instead of \(64,\)"
    )
    with pytest.raises(CheckpointError, match=message):
        published.load(tmp_path / "ckpt_1", config=micro)
    with pytest.raises(CheckpointError, match="head/bias"):
        published.load(tmp_path / "ckpt_1", grid=GRID)


def test_files_that_are_no_checkpoints(checkpoint, tmp_path):
    place = tmp_path / "ckpt_1"
    for content, message in (
        (checkpoint.read_bytes()[:-1000], "is truncated or no checkpoint"),
        (b"<!DOCTYPE html><title>404</title>", "is an HTML or XML page"),
        (b"\n<?xml version='1.0'?><Error/>", "is an HTML or XML page"),
        (serialization.msgpack_serialize({"step": 1}), "has no 'params'"),
        (serialization.msgpack_serialize({"params": {"a": "text"}}), "a of 'params' is not an array of numbers"),
        (serialization.msgpack_serialize({"params": {2.5: np.ones(2)}}), "2.5 of 'params' is not an array of numbers"),
        (serialization.msgpack_serialize({"params": {"a": np.ones(2, np.complex64)}}), "a of 'params' is not an array"),
        (serialization.msgpack_serialize({"params": {"a": np.zeros(2)}}), "not a checkpoint of this model"),
    ):
        place.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            published.load(place)
    with pytest.raises(CheckpointError, match="is neither a file nor a published name"):
        published.load(tmp_path / "bsae")
    with pytest.raises(CheckpointError, match="no file ckpt_STEP"):
        published.load(tmp_path / "..", grid=GRID)


def test_a_damaged_vocabulary_beside_the_weights_is_named(checkpoint, tmp_path):
    (tmp_path / "ckpt_1").write_bytes(checkpoint.read_bytes())
    for content in (b"{}", b"\xff\xfe"):
        (tmp_path / "tokenizer.json").write_bytes(content)
        loaded = published.load(tmp_path, grid=GRID)
        with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer file"):
            loaded.get_label_space(["a dog"])


SMALL = serialization.msgpack_serialize({"params": {"a": {"b": np.arange(6, dtype=np.float16)}}, "step": 3})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, len(SMALL)), st.binary(max_size=4))))
def test_any_bytes_are_parameters_or_a_clear_error(data):
    """Random bytes, and a real file with some bytes overwritten and the rest cut off."""
    if isinstance(data, tuple):
        place, patch = data
        data = SMALL[:place] + patch + SMALL[place + len(patch) : len(SMALL) - place % 3]
    params = {}
    with contextlib.suppress(CheckpointError):
        params = decode(data, "the file")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_names_and_grids_choose_the_file():
    for name, grid, address in (
        ("base", (12, 20), "ckpts/base"),
        ("base", (18, 32), "ckpts/base_resadapt"),
        ("large", (24, 24), "ckpts/large_resadapt"),
        ("vcr_finetune_base", (18, 32), "vcr_ckpts/vcr_finetune_base"),
        ("tvqa_finetune_large", (18, 32), "tvqa_ckpts/tvqa_finetune_large"),
    ):
        assert published.remote_file(name, grid).address == f"gs://merlotreserve/{address}"
    assert published.remote_file("https://mine/ckpts/base", (18, 32)).name.endswith("-base")
    assert published.remote_file("gs://mine/ckpts/base", (18, 32)) is None
    assert published.remote_file("ckpts/base", (18, 32)) is None


def test_wrong_grids(checkpoint, micro):
    with pytest.raises(ConfigError, match=r"grid is \(17, 32\)"):
        published.load(checkpoint, grid=(17, 32))
    with pytest.raises(ConfigError, match=r"grid \(24, 24\) disagrees with the grid \(4, 6\)"):
        published.load(checkpoint, grid=(24, 24), config=micro)
    model = published.load(checkpoint, grid=(4, 4))
    images = np.zeros((1, 24, 768), np.float32)
    with pytest.raises(InputError, match=r"grid \(4, 4\) needs"):
        model.get_imgseq_only(images)


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; the first `breaks` answers stop half way, and ranges are honoured."""

    content = b""
    breaks = 0
    ranges = ()

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        type(self).ranges.append(start)
        self.send_response(206 if start else 200)
        body = self.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).breaks:
            type(self).breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (_Server,), {"ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        handler.address = f"http://127.0.0.1:{service.server_port}/ckpts/micro"
        yield handler
        service.shutdown()


def test_broken_downloads_are_continued_and_kept(server, checkpoint, loaded, micro, tmp_path):
    server.content, server.breaks = checkpoint.read_bytes(), 1
    seen = []
    model = published.load(
        server.address, config=micro, cache_dir=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    jax.tree.map(np.testing.assert_array_equal, model.params, loaded.params)
    assert server.ranges[0] == 0
    assert 0 < server.ranges[1] < len(server.content)
    assert seen[-1] == (len(server.content), len(server.content))
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == ["", ".sha256"]
    published.load(server.address, config=micro, cache_dir=tmp_path)
    assert len(server.ranges) == 2


def test_an_error_page_does_not_stay_in_the_cache(server, checkpoint, micro, tmp_path):
    server.content = b"<html>Sorry, over quota</html>"
    with pytest.raises(CheckpointError, match=r"HTML or XML page.*removed from the cache"):
        published.load(server.address, config=micro, cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    server.content = checkpoint.read_bytes()
    assert published.load(server.address, config=micro, cache_dir=tmp_path).config == micro


def test_bad_inputs_are_named_and_nothing_is_nan(loaded, micro):
    images = np.zeros((2, 24, 768), np.float32)
    clips = np.zeros((6, 60, 65), np.float32)
    tokens, places = np.array([11, 3, 0]), np.array([0, 0, -1])
    for wrong in (40_000, -2):
        with pytest.raises(InputError, match=f"token {wrong} is outside the vocabulary of 32768"):
            loaded.embed_video(images, clips, np.array([wrong, 3, 0]), places)
    with pytest.raises(InputError, match="9 segments; at most 8"):
        loaded.embed_video(np.zeros((9, 24, 768), np.float32), None, tokens, places)
    with pytest.raises(InputError, match="tokens ask for sound, but audio_clips is None"):
        loaded.embed_video(images, None, np.array([5, 3, 0]), places)
    with pytest.raises(InputError, match=r"audio clips have shape \(1, 6, 60, 64\)"):
        loaded.embed_video(images, clips[..., :64], np.array([5, 3, 0]), places)
    nothing = np.zeros(3, int)
    assert np.isfinite(loaded.embed_video(images, clips, nothing, nothing - 1)).all()
    assert np.isfinite(loaded.embed_text_spans_only(np.zeros((2, 15), int))).all()
    hidden = loaded.prepare_multimodal_inputs(nothing[None])
    assert not hidden["attention_mask"].any()
    run = functools.partial(MerlotReserve(micro).apply, method=lambda model, t: model.joint(model.assemble(t)))
    out = jax.jit(run)({"params": loaded.params}, nothing[None])
    assert np.isfinite(out).all()


def test_ids_outside_the_vocabulary_are_clamped_in_jit(loaded, micro):
    run = jax.jit(functools.partial(MerlotReserve(micro).apply, method="embed_text_spans_only"))
    wrong, nearest = (np.array([[value, 0]]) for value in (99_999, 32_767))
    variables = {"params": loaded.params}
    np.testing.assert_array_equal(run(variables, wrong), run(variables, nearest))


def test_finetuned_checkpoints_lack_methods(loaded, tmp_path, micro):
    kept = {n: t for n, t in loaded.params.items() if n not in ("audio_encoder", "head", "span_encoder")}
    export({**kept, "proj": {"kernel": np.zeros((64, 1))}}, tmp_path / "vcr")
    model = published.load(tmp_path / "vcr", config=micro)
    assert model.get_imgseq_only(np.zeros((1, 24, 768), np.float32)).shape == (1, 6, 64)
    with pytest.raises(CheckpointError, match="embed_text_spans_only needs more than this finetuned checkpoint has"):
        model.embed_text_spans_only(np.ones((1, 15), int))


def test_losses_of_a_loaded_model_are_finite_in_bfloat16(loaded, batch, micro):
    config = dataclasses.replace(micro, dtype="bfloat16", scan_layers=True, mask_invalid_pairs=True)

    def loss(params):
        outputs = objectives.pretraining_outputs(MerlotReserve(config), params, batch, jax.random.key(1))
        return losses.contrastive(outputs)[0]

    assert np.isfinite(jax.jit(loss)(stack_layers(loaded.params)))


def test_the_published_presets_are_the_defaults():
    assert BASE.grid == (12, 20)
    assert DEFAULT_GRID == (18, 32)
