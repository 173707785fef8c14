"""Golden arrays, parameters made from names, compiled functions shared by the tests, and the table of worst errors."""

import functools
import json
from pathlib import Path

import closing_tables
import jax
import numpy as np
import pytest

from model.config import ReserveConfig
from model.reserve import MerlotReserve, parameter_shapes
from tests.golden_arrays import golden_parameter

GOLDEN = Path(__file__).parent.parent / "golden" / "model"


class GoldenFile:
    """One file of golden arrays that records how far ours are."""

    def __init__(self, name):
        self.name = name
        with np.load(GOLDEN / name) as arrays:
            self.arrays = dict(arrays)

    def __getitem__(self, name):
        return self.arrays[name]

    def under(self, prefix):
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}

    def check(self, name, ours, tolerance=1e-5, where=None, expected=None):
        """Compare with the array of this name (or `expected`), at `where` only, and note the error."""
        expected = self.arrays[name] if expected is None else expected
        ours = np.asarray(ours, np.float64)
        assert ours.shape == expected.shape, name
        difference = np.abs(ours - expected)
        if where is not None:
            difference, expected = difference[where], expected[where]
        error = float(difference.max() / max(np.abs(expected).max(), 1e-30))
        closing_tables.note_array(self.name, error, name)
        assert error <= tolerance, f"{self.name} {name}: error {error:.2e}"

    def check_norms(self, prefix, arrays, tolerance=1e-4):
        """Compare norms by path; those that are zero but for rounding must be so in ours too."""
        expected = {path: float(norm) for path, norm in self.under(prefix).items()}
        negligible = 1e-6 * max(expected.values())
        for path, norm in expected.items():
            ours = np.linalg.norm(np.asarray(arrays[path], np.float64))
            if norm < negligible:
                assert ours < 2 * negligible, path
            else:
                self.check(f"{prefix}{path}", ours, tolerance)


@functools.cache
def golden_file(name):
    return GoldenFile(name)


@functools.cache
def golden_json(name):
    return json.loads((GOLDEN / name).read_text())


@functools.cache
def golden_config(name="tiny", **changes):
    mapping = golden_json("config.json")[name]
    config = ReserveConfig.from_published({"model": mapping["model"], "data": mapping["data"]})
    return config if not changes else config.__class__(**{**vars(config), **changes})


@pytest.fixture(scope="session")
def leaf_paths():
    """Leaves of a tree by slash-joined path."""

    def paths(tree):
        return {"/".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    return paths


@functools.cache
def golden_parameters(name="tiny"):
    def make(path, leaf):
        return golden_parameter("/".join(key.key for key in path), leaf.shape)

    return jax.tree_util.tree_map_with_path(make, parameter_shapes(golden_config(name)))


@functools.cache
def jitted(method, config):
    """One compiled method of a module, `(params, *arrays)`."""
    module = MerlotReserve(config)
    return jax.jit(lambda params, *args: module.apply({"params": params}, *args, method=method))


@pytest.fixture(scope="session")
def params():
    return golden_parameters()


@pytest.fixture(scope="session")
def config():
    return golden_config()


@pytest.fixture(scope="session")
def golden():
    return golden_file


@pytest.fixture(scope="session")
def golden_table():
    return golden_json


@pytest.fixture(scope="session")
def golden_folder():
    return GOLDEN


@pytest.fixture(scope="session")
def named_parameter():
    return golden_parameter


@pytest.fixture(scope="session")
def make_config():
    return golden_config


@pytest.fixture(scope="session")
def make_parameters():
    return golden_parameters


@pytest.fixture(scope="session")
def compiled():
    return jitted
