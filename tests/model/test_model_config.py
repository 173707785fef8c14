"""Configurations: the published mapping, presets, parameter trees and initial values."""

import dataclasses

import jax
import numpy as np
import pytest

from model.config import BASE, LARGE, TINY, ConfigError, Remat, ReserveConfig
from model.reserve import initial_parameters, parameter_shapes


@pytest.fixture
def mapping(golden_table):
    tiny = golden_table("config.json")["tiny"]
    return {"model": dict(tiny["model"]), "data": dict(tiny["data"])}


def test_published_mapping(mapping):
    config = ReserveConfig.from_published({**mapping, "device": {}, "optimizer": {"learning_rate": 4e-4}})
    assert (config.hidden_size, config.heads, config.grid, config.dtype) == (128, 2, (4, 6), "float32")
    assert (config.audio_spans, config.targets, config.spans_per_example) == (12, 3, 14)
    assert not config.mask_invalid_pairs


@pytest.mark.parametrize("section", ["model", "data"])
def test_unknown_keys_are_named(mapping, section):
    mapping[section]["hiden_size"] = 1
    with pytest.raises(ConfigError, match=f"section '{section}' has unknown keys: 'hiden_size'"):
        ReserveConfig.from_published(mapping)


def test_incomplete_or_unpublished_mappings(mapping):
    with pytest.raises(ConfigError, match="no section 'data'"):
        ReserveConfig.from_published({"model": mapping["model"]})
    with pytest.raises(ConfigError, match="unknown keys: 'modle'"):
        ReserveConfig.from_published({**mapping, "modle": {}})
    for key, value in (("do_rotary", False), ("ablation", "no_audio")):
        with pytest.raises(ConfigError, match=key):
            ReserveConfig.from_published({**mapping, "model": {**mapping["model"], key: value}})
    del mapping["model"]["use_bfloat16"]
    with pytest.raises(ConfigError, match="use_bfloat16"):
        ReserveConfig.from_published(mapping)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (11, 20)}, r"grid is \(11, 20\)"),
        ({"grid": (18,)}, r"grid is \(18,\)"),
        ({"hidden_size": 100}, "hidden_size is 100"),
        ({"rotary_size": 20}, "rotary_size is 20"),
        ({"span_length": 16}, "span_length is 16"),
        ({"groups": 3}, "segments is 16"),
        ({"audio_tokens": 7}, "audio_frames is 60"),
        ({"sequence_length": 600}, "sequence_length is 600"),
        ({"spans_to_include": 63}, "spans_to_include is 63"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"span_choice": "all"}, "span_choice is 'all'"),
        ({"remat": Remat(joint="some")}, "remat.joint is 'some'"),
    ],
)
def test_impossible_configurations(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(BASE, **change)


def test_grids_of_the_published_sizes():
    assert [BASE.with_grid(grid).sequence_length for grid in ((12, 20), [18, 32], (24, 24))] == [640, 1312, 1312]
    assert BASE.with_grid([18, 32]).tokens_per_image == 144


@pytest.mark.parametrize(("name", "config"), [("base", BASE), ("large", LARGE)])
def test_published_parameter_trees(golden_table, leaf_paths, name, config):
    published = golden_table(f"params_{name}.json")
    ours = leaf_paths(parameter_shapes(config))
    assert {path: list(leaf.shape) for path, leaf in ours.items()} == {
        path: leaf["shape"] for path, leaf in published["params"].items()
    }
    assert len(ours) == published["num_tensors"]
    assert sum(leaf.size for leaf in ours.values()) == published["total_params"]
    assert {leaf.dtype for leaf in ours.values()} == {np.dtype(np.float32)}


def test_golden_parameters_are_those_the_numbers_were_made_with(golden_table, params, leaf_paths):
    ours = leaf_paths(params)
    for path, expected in golden_table("config.json")["param_checksums"].items():
        assert ours[path].astype(np.float64).sum() == pytest.approx(expected["sum_f64"], abs=1e-6), path


def test_initial_values(leaf_paths):
    config = dataclasses.replace(TINY, hidden_size=256, vocabulary_size=1024, span_layers=2, initialization="published")
    initial = leaf_paths(jax.jit(initial_parameters, static_argnums=0)(config, jax.random.key(0)))
    kernel = np.asarray(initial["joint_transformer/layer_00/mlp_layer/intermediate/kernel"])
    scale = 0.02 / 2**0.5
    assert kernel.std() == pytest.approx(0.8796 * scale, rel=0.02)
    assert np.abs(kernel).max() <= 2 * scale + 1e-7
    out = np.asarray(initial["joint_transformer/layer_00/mlp_layer/out/kernel"])
    assert out.std() == pytest.approx(0.8796 * (18 / 1024) / 2**0.5, rel=0.02)
    audio = np.asarray(initial["audio_encoder/embedding/kernel"])
    assert audio.std() == pytest.approx(0.8796 * scale, rel=0.02)
    pool = np.asarray(initial["vision_encoder/seq_attnpool/query/kernel"])
    assert pool.std() == pytest.approx(1 / 16, rel=0.02)
    assert np.asarray(initial["token_encoder/Embed_0/embedding"]).std() == pytest.approx(0.02, rel=0.02)
    np.testing.assert_array_equal(initial["contrastive_scales"], 3)
    for path, leaf in initial.items():
        if path.endswith("bias"):
            assert not leaf.any(), path
        if path.endswith("scale"):
            assert (leaf == 1).all(), path


def test_wide_models_start_with_xavier_embeddings():
    config = dataclasses.replace(TINY, hidden_size=800, head_size=32, vocabulary_size=4096)
    # Only the table is computed; what nothing asks for is left out of the program.
    draw = jax.jit(lambda key: initial_parameters(config, key)["token_encoder"]["Embed_0"]["embedding"])
    table = np.asarray(draw(jax.random.key(0)))
    limit = (6 / (4096 + 800)) ** 0.5
    assert np.abs(table).max() == pytest.approx(limit, rel=1e-3)
    assert table.std() == pytest.approx(limit / 3**0.5, rel=0.01)
