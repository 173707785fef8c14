"""Which layout a run gets on which devices; that its programs fit is the compilers' word (docs/performance.md)."""

import dataclasses
from types import SimpleNamespace

import pytest

from model.config import Remat
from train.compilation.layouts import LAYOUTS, for_devices
from train.config import MeshConfig
from train.configs import PRESETS

TINY, BASE, LARGE, BASE_RESADAPT = (PRESETS[name] for name in ("tiny", "base", "large", "base_resadapt"))


def devices(count, kind="TPU v4"):
    return [SimpleNamespace(device_kind=kind)] * count


def recomputes(config):
    return {config.model.remat.vision, config.model.remat.audio, config.model.remat.joint}


@pytest.mark.parametrize("preset", [BASE, LARGE, BASE_RESADAPT], ids=["base", "large", "base_resadapt"])
@pytest.mark.parametrize("kind", sorted({kind for _, kind in LAYOUTS}))
def test_a_known_chip_gets_its_layout(preset, kind):
    layout = LAYOUTS[preset.model.hidden_size, kind]
    found = for_devices(preset, devices(64, kind))
    assert (found.mesh, recomputes(found)) == (MeshConfig(fsdp=layout.fsdp), {layout.remat})
    each = preset.batch_size // 64
    assert each % found.microbatches == 0
    at_once = each // found.microbatches
    # Images of other grids have more patches, and an example of them is that much larger.
    assert at_once * preset.model.patches <= layout.examples * BASE.model.patches
    assert found.numbers() == preset.numbers()


def test_what_is_given_is_kept():
    given = dataclasses.replace(BASE, mesh=MeshConfig(fsdp=2), microbatches=4)
    found = for_devices(given, devices(64))
    assert (found.mesh, found.microbatches) == (MeshConfig(fsdp=2), 4)
    chosen = dataclasses.replace(BASE, layout="given")
    assert for_devices(chosen, devices(64)) == chosen


def test_fsdp_divides_the_devices():
    assert LAYOUTS[LARGE.model.hidden_size, "TPU v4"].fsdp > 2
    assert for_devices(LARGE, devices(2)).mesh == MeshConfig(fsdp=2)


def test_other_devices_and_models_are_left_alone():
    assert for_devices(BASE, devices(1, "cpu")) == BASE
    assert for_devices(TINY, devices(64)) == TINY
    other = dataclasses.replace(TINY, layout="auto")
    assert for_devices(other, devices(64)) == other
    assert BASE.model.remat == Remat()
