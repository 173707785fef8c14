"""Compiling for devices that are not there: what a program's text says it moves, and the real TPU compiler."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from train.compilation.devices import chip
from train.compilation.matmul_flops import matmul_flops
from train.compilation.program_cost import Collective, analyse

ROOT = Path(__file__).parent.parent.parent
COMPILER = Path(sys.prefix) / "tpu-compiler"
NARROW = (
    *("--model.hidden-size", "128", "--model.segments", "2", "--model.sequence-length", "168"),
    *("--model.spans-to-include", "2", "--model.dtype", "bfloat16"),
)

PROGRAM = """HloModule step

%body (p: (s32[], f32[128,256])) -> (s32[], f32[128,256]) {
  %p = (s32[], f32[128,256]{1,0:T(8,128)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[128,256]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %near = f32[128,256]{1,0:T(8,128)S(1)} negate(%x), metadata={op_name="jit(step)/jvp(a)/mlp_layer/out/neg"}
  %y = f32[128,256]{1,0:T(8,128)} all-reduce(%near), replica_groups=[2,4]<=[8], metadata={op_name="jit(step)/transpose"}
  ROOT %t = (s32[], f32[128,256]{1,0:T(8,128)}) tuple(%i, %y)
}

%condition (p.1: (s32[], f32[128,256])) -> pred[] {
  %p.1 = (s32[], f32[128,256]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %twelve = s32[] constant(12)
  ROOT %less = pred[] compare(%i.1, %twelve), direction=LT
}

%fused (a: f32[12,100,64], b: s32[]) -> f32[1,100,64] {
  %a = f32[12,100,64]{2,1,0:T(8,128)} parameter(0)
  %b = s32[] parameter(1)
  ROOT %slice = f32[1,100,64]{2,1,0:T(8,128)} dynamic-slice(%a, %b), dynamic_slice_sizes={1,100,64}
}

ENTRY %main (a.1: f32[12,100,64], b.1: s32[], x.1: f32[128,256]) -> f32[128,256] {
  %a.1 = f32[12,100,64]{2,1,0:T(8,128)} parameter(0)
  %b.1 = s32[] parameter(1)
  %x.1 = f32[128,256]{1,0:T(8,128)} parameter(2)
  %one = f32[1,100,64]{2,1,0:T(8,128)} fusion(%a.1, %b.1), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/div"}
  %both = (s32[], f32[128,256]{1,0:T(8,128)}) tuple(%b.1, %x.1)
  %loop = (s32[], f32[128,256]{1,0:T(8,128)}) while(%both), condition=%condition, body=%body
  ROOT %end = f32[128,256]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


def test_bytes_of_loops_slices_and_memory_on_the_chip():
    cost = analyse(PROGRAM)
    size = 128 * 256 * 4
    # Twelve times: the layer reads its input, its output stays on the chip; the sum over devices is written.
    assert cost.bytes["dense layers"] == 12 * size
    assert cost.bytes["between layers"] == 12 * size
    # One slice of twelve is read and written; 100 x 64 numbers take 104 x 128 places, the counter a few bytes.
    assert cost.bytes["optimizer and state"] == pytest.approx(2 * 104 * 128 * 4, abs=8)
    assert cost.collectives == (Collective("all-reduce", 12, 12 * 2 * size * 3 / 4),)


def test_products_in_loops_and_recomputed_ones_are_counted():
    def layer(x, _):
        return jax.checkpoint(lambda x: jnp.tanh(x @ x))(x), None

    def loss(x):
        return jax.lax.scan(layer, x, length=5)[0].sum()

    program = jax.make_jaxpr(jax.grad(loss))(jnp.ones((8, 8)))
    # Forward, recomputed forward and two gradients.
    assert matmul_flops(program) == 5 * 4 * 2 * 8**3


def test_what_is_known_of_chips():
    assert chip("NVIDIA H200 NVL").flops == 989e12
    assert (chip("TPU v5 lite").flops, chip("TPU v5p").flops) == (197e12, 459e12)
    assert chip("cpu") is None


@pytest.fixture(scope="module")
def compile_for(tmp_path_factory):
    """The command with the compiler that `make setup` puts beside the packages, and an empty cache."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def command(*arguments, compiler=COMPILER):
        environment = os.environ | {"PYTHONPATH": str(compiler), "XDG_CACHE_HOME": cache}
        done = subprocess.run(
            [sys.executable, "-m", "train.compile", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        return done.returncode, done.stdout, done.stderr

    return command


@pytest.fixture(scope="module")
def tpu(compile_for):
    if not COMPILER.is_dir():
        pytest.skip("there is no TPU compiler for this machine; `make setup` puts it in .venv/tpu-compiler on Linux")
    return compile_for


def test_a_step_compiles_for_tpus(tpu):
    first, again = (
        tpu("tiny", "--topology", "v4:2x2x1", "--mesh.fsdp", 2, "--batch-size", 8, *NARROW, "--json") for _ in range(2)
    )
    assert first[0] == again[0] == 0, first[2]
    report = json.loads(first[1])
    assert again[1] == first[1], "the second time the result comes from the cache"
    assert "compiling" in first[2]
    assert "compiling" not in again[2]
    assert (report["devices"], report["mesh"]) == (4, {"data": 2, "fsdp": 2, "tensor": 1})
    assert 0 < report["argument_bytes"] < report["peak_bytes"] < report["memory_bytes"]
    # 168 tokens are padded to 256, and the backward pass computes scores again.
    assert report["model_flops"] <= report["flops"] < 3 * report["model_flops"]
    assert {"all-reduce"} <= {one["kind"] for one in report["collectives"]}
    assert 0 < report["utilisation"] < 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--topology", "v9:2x2"], 2, "--topology v9:2x2: Invalid TPU external name: TPU v9; name a generation"),
        (["--topology", "v4:3x3x3"], 2, '--topology v4:3x3x3: Topology layout "v4:3x3x3" is not divisible'),
        (["--topology", "v5e:2x2", "--mesh.fsdp", "3"], 2, "fsdp 3 and tensor 1 does not fit 4 devices"),
        (["--topology", "h100:9"], 2, "--topology h100:9: 9 of GPUs; name up to 8, or whole hosts of them"),
        (["--topology", "v5e:2x2", "--batch-size", "9"], 2, "batch_size 9 is not divisible by the 4 devices"),
        (
            ["--topology", "v5e:2x2", "--batch-size", "32768", *NARROW],
            1,
            "of the 15.75G of one TPU v5 lite with 8192 examples on each device; lower --batch-size",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(tpu, arguments, status, message):
    returned, _, errors = tpu("tiny", *arguments)
    assert returned == status
    assert message in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("topology", "module", "message"),
    [
        ("v4:2x2x1", "libtpu", "error: the TPU compiler is not installed; install the extra `tpu`"),
        ("h100:8", "jax_plugins.xla_cuda13", "error: the GPU compiler is not installed; install the extra `gpu`"),
    ],
)
def test_without_the_compiler_the_extra_is_named(compile_for, tmp_path, topology, module, message):
    if importlib.util.find_spec(module.partition(".")[0]) and importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed in this environment")
    returned, _, errors = compile_for("tiny", "--topology", topology, compiler=tmp_path)
    assert returned == 1
    assert errors.startswith(message)
    assert len(errors.splitlines()) == 1
