"""Every compiled program of every preset, traced and lowered for NVIDIA GPUs with cuDNN attention on a machine without.

Only JAX's two questions to the hardware are answered for it: the version of cuDNN and the compute capability. What the
programs may contain is decided by JAX's own checks, gradient rules and lowerings.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from model.config import BASE, LARGE, TINY, Remat
from model.flops import pretraining_flops
from model.reserve import MerlotReserve, parameter_shapes
from train import config, mesh, step
from train.compilation.matmul_flops import matmul_flops
from train.tasks import step as task_step
from train.tasks.table import TASKS

MODELS = {"tiny": TINY, "base": BASE, "large": LARGE}


@pytest.fixture(autouse=True)
def hopper(monkeypatch):
    """An H100 with cuDNN 9.13, as far as JAX asks."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda capability: True)


def on_gpu(model):
    return dataclasses.replace(model, dtype="bfloat16", attention="cudnn")


def lowered(function, *arguments):
    return function.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def state_and_batch(shapes, batch):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (shapes, batch))


@pytest.mark.parametrize("preset", MODELS)
@pytest.mark.parametrize("scanned", [False, True])
def test_pretraining(preset, scanned):
    model = dataclasses.replace(on_gpu(MODELS[preset]), scan_layers=scanned)
    if scanned:
        model = dataclasses.replace(model, remat=Remat("full", "dots", "none", "full"))
    run = config.TrainConfig(model, batch_size=2, microbatches=2 if scanned else 1)
    one = mesh.make_mesh(run.mesh, jax.devices()[:1])
    once = step.make_step(run, one)
    arrays = state_and_batch(step.state_shapes(run), step.batch_shapes(run))
    text = lowered(once, *arrays)
    assert "__cudnn$fmha" in text
    assert "Backward" in text
    needed = 2 * 3 * sum(pretraining_flops(model).values())
    assert needed <= matmul_flops(once.trace(*arrays).jaxpr) < 1.7 * needed


@pytest.mark.parametrize("preset", MODELS)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_finetuning(preset, task):
    reader = dataclasses.replace(task.reader, image_dtype="bfloat16")
    model = dataclasses.replace(on_gpu(MODELS[preset]).with_grid(reader.grid), scan_layers=preset != "tiny")
    batch = {
        name: jax.ShapeDtypeStruct((2, *shape), dtype) for name, (shape, dtype) in task.parser(reader).spec().items()
    }
    optimizer = config.OptimizerConfig(total_steps=10, warmup_steps=1)
    one = mesh.make_mesh(config.MeshConfig(), jax.devices()[:1])
    state = task_step.state_shapes(task, model, optimizer)
    assert "Backward" in lowered(task_step.make_step(task, model, optimizer, one), *state_and_batch(state, batch))
    marked = {**batch, task_step.IS_RECORD: jax.ShapeDtypeStruct((2,), bool)}
    assert "__cudnn$fmha" in lowered(
        task_step.make_evaluation(task, model, one), *state_and_batch(state.params, marked)
    )


@pytest.mark.parametrize("preset", MODELS)
def test_inference_and_embedding(preset):
    model = on_gpu(MODELS[preset].with_grid((10, 18)))
    module, params = MerlotReserve(model), parameter_shapes(model)

    def lower(method, *shapes):
        arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        return lowered(jax.jit(lambda p, *args: module.apply({"params": p}, *args, method=method)), params, *arrays)

    images, clips = (model.patches, model.patch_values), (model.audio_frames, model.mel_bands + 1)
    tokens = ((2, model.text_length), jnp.int32)
    pooled = ((2, 7, model.tokens_per_image, model.hidden_size), jnp.bfloat16)
    sounds = ((2, 21, model.audio_tokens, model.hidden_size), jnp.bfloat16)
    programs = {
        "get_imgseq_only": [((8, *images), jnp.float32)],
        "embed_images_only": [((8, *images), jnp.float32)],
        "get_audioseq_only": [((8, *clips), jnp.float32)],
        "embed_audio_only": [((8, *clips), jnp.float32)],
        "embed_text_spans_only": [((3, 15), jnp.int32)],
        "batch_embed_preencoded": [pooled, sounds, tokens, tokens],
    }
    for method, shapes in programs.items():
        assert "__cudnn$fmha" in lower(method, *shapes), method
