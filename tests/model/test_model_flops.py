"""The arithmetic count of operations against the count of the compiler's cost analysis."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from model import objectives
from model.config import BASE, LARGE
from model.flops import pretraining_flops
from model.reserve import MerlotReserve, parameter_shapes


def _counted(config):
    """Operations of the unrolled forward by the compiler's count; nothing is compiled or allocated."""
    forward = functools.partial(objectives.pretraining_outputs, MerlotReserve(config))
    lowered = jax.jit(forward).lower(parameter_shapes(config), objectives.batch_shapes(config, 1), jax.random.key(0))
    return lowered.cost_analysis()["flops"]


def test_base_forward():
    config = dataclasses.replace(BASE, dtype="float32")
    assert _counted(config) == pytest.approx(sum(pretraining_flops(config).values()), rel=0.05)


def test_a_scan_hides_layers_from_the_cost_analysis_only():
    scanned = dataclasses.replace(BASE, dtype="float32", scan_layers=True)
    assert _counted(scanned) < 0.5 * sum(pretraining_flops(scanned).values())


def test_figures_in_the_guide():
    for config, expected in ((BASE, 1.75), (LARGE, 5.54)):
        assert sum(pretraining_flops(config).values()) / 1e12 == pytest.approx(expected, abs=0.01)
    assert np.argmax(list(pretraining_flops(BASE).values())) == list(pretraining_flops(BASE)).index("joint")
