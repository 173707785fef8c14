"""Golden arrays, the golden model with parameters made from names, and a small data set to train on."""

import functools
import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from model.config import ReserveConfig
from model.reserve import parameter_shapes

GOLDEN = Path(__file__).parent.parent / "golden" / "model"
DEVIATIONS = {"kernel": 0.08, "bias": 0.05, "scale": 0.1, "cls": 0.02, "embedding": 0.02}


@functools.cache
def golden_arrays(name):
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


@functools.cache
def golden_mapping(name):
    return json.loads((GOLDEN / "config.json").read_text())[name]


def golden_parameter(path, shape):
    """The golden parameter of a slash-joined path: normal numbers seeded by its name."""
    leaf = path.rsplit("/", 1)[-1]
    if leaf == "contrastive_scales":
        return np.ones(shape, np.float32)
    numbers = np.random.RandomState(zlib.crc32(path.encode()) & 0x7FFFFFFF).standard_normal(shape)
    return (DEVIATIONS[leaf] * numbers + (leaf == "scale")).astype(np.float32)


def slash_path(path):
    return "/".join(key.key for key in path)


@pytest.fixture(scope="session")
def golden():
    return golden_arrays


@pytest.fixture(scope="session")
def mapping():
    return golden_mapping


@pytest.fixture(scope="session")
def model_config():
    """The golden model without random choices that change values."""
    mapping = golden_mapping("tiny_neutral")
    return ReserveConfig.from_published({"model": mapping["model"], "data": mapping["data"]})


@pytest.fixture(scope="session")
def params(model_config):
    def make(path, leaf):
        return golden_parameter(slash_path(path), leaf.shape)

    return jax.tree_util.tree_map_with_path(make, parameter_shapes(model_config))


@pytest.fixture(scope="session")
def named_parameter():
    return golden_parameter


@pytest.fixture(scope="session")
def leaf_paths():
    """Leaves of a tree by slash-joined path."""
    return lambda tree: {slash_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
