"""The classifiers of VCR and TVQA, put together from the model's public parts, against golden logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.checkpoints import DROPPED_BY_TASK, CheckpointError, verify
from model.config import BASE, LARGE
from model.reserve import JointInputs, MerlotReserve, parameter_shapes
from shards.tokens import AUDIOSPAN, MASK

FILE = "finetune.npz"


def _logits(model, inputs, tokens, projection):
    hidden = model.joint(inputs)
    first = jnp.argmax(tokens == MASK, axis=1)
    return (hidden[jnp.arange(len(first)), first] @ projection)[:, 0]


def _vcr(model, image, answers, projection):
    tokens = answers.reshape(-1, answers.shape[-1])
    vision = jnp.repeat(model.get_imgseq_only(image), 8, axis=0)
    inputs = model.assemble(tokens, token_segment_idx=jnp.zeros_like(tokens), vision_input=vision)
    return _logits(model, inputs, tokens, projection).reshape(answers.shape[:3])


def _tvqa(model, images, clips, textonly, audio, projection):
    batch, answers = textonly.shape[:2]
    vision = model.get_imgseq_only(images)
    per_image = vision.shape[2]
    vision = jnp.pad(vision, ((0, 0), (1, 0), (0, 0), (0, 0))).reshape(batch, -1, vision.shape[-1])
    sounds = model.get_audioseq_only(clips).reshape(batch, -1, model.config.audio_tokens, vision.shape[-1])
    vision, sounds = (jnp.repeat(part, answers, axis=0) for part in (vision, sounds))

    def rows(sequences, spans):
        tokens, segments = sequences.reshape(-1, *sequences.shape[2:]).transpose(2, 0, 1)
        pointers = (jnp.cumsum(tokens == AUDIOSPAN, axis=1) - 1) // model.config.audio_tokens % sounds.shape[1]
        joint = model.assemble(
            tokens, token_segment_idx=segments, vision_input=vision, audio_spans=spans, audio_pointers=pointers
        )
        zero_image = slice(tokens.shape[1], tokens.shape[1] + per_image)
        return tokens, jax.tree.map(lambda part: jnp.delete(part, zero_image, axis=1), joint)

    heard, read = rows(audio, sounds), rows(textonly, None)
    tokens = jnp.concatenate([heard[0], read[0]])
    inputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), heard[1], read[1])
    assert isinstance(inputs, JointInputs)
    return _logits(model, inputs, tokens, projection).reshape(2, batch, answers)


def _cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1).mean()


def _vcr_loss(config, params, batch):
    arrays = (batch["image"], batch["answers"], params["proj"]["kernel"])
    logits = MerlotReserve(config).apply({"params": params}, *arrays, method=_vcr)
    return _cross_entropy(logits, batch["labels"]), {"logits": logits}


def _tvqa_loss(config, params, batch):
    arrays = [batch[name] for name in ("images", "audio_clips", "textonly_seqs", "audio_seqs")]
    heard, read = MerlotReserve(config).apply({"params": params}, *arrays, params["proj"]["kernel"], method=_tvqa)
    losses = {"loss_info/loss_audio": _cross_entropy(heard, batch["labels"])}
    losses["loss_info/loss_text"] = _cross_entropy(read, batch["labels"])
    return sum(losses.values()), {"logits_audio": heard, "logits_text": read, **losses}


@pytest.mark.parametrize(("task", "loss"), [("vcr", _vcr_loss), ("tvqa", _tvqa_loss)])
def test_logits_loss_and_gradients(golden, params, config, named_parameter, leaf_paths, task, loss):
    file = golden(FILE)
    kept = {name: tree for name, tree in params.items() if name not in DROPPED_BY_TASK[task]}
    kept["proj"] = {"kernel": named_parameter("proj/kernel", (config.hidden_size, 1))}
    batch = {name: jnp.asarray(array) for name, array in file.under(f"{task}/batch/").items()}
    run = jax.jit(jax.value_and_grad(functools.partial(loss, config), has_aux=True))
    (total, found), gradients = run(kept, batch)
    file.check(f"{task}/loss", total)
    for name, ours in found.items():
        file.check(f"{task}/{name}", ours)
    ours = leaf_paths(gradients)
    file.check_norms(f"{task}/grad_l2/", ours)
    for path, expected in file.under(f"{task}/grad/").items():
        slices = tuple(slice(0, size) for size in expected.shape)
        file.check(f"{task}/grad/{path}", ours[path][slices], 1e-4)


@pytest.mark.parametrize(("name", "config"), [("base", BASE), ("large", LARGE)])
@pytest.mark.parametrize("task", ["vcr", "tvqa"])
def test_finetuned_trees(golden_table, name, config, task):
    published = golden_table("finetune_params.json")[name][task]
    shapes = {**parameter_shapes(config), "proj": {"kernel": np.empty((config.hidden_size, 1))}}
    kept = {part: tree for part, tree in shapes.items() if part in published["kept_top_level"]}
    verify(kept, config, "the file")
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(kept)) == published["total_params"]
    with pytest.raises(CheckpointError, match="parameters 2 missing: joint_transformer/final_ln/bias"):
        verify({**kept, "joint_transformer": _without(kept["joint_transformer"], "final_ln")}, config, "the file")


def _without(tree, name):
    return {key: value for key, value in tree.items() if key != name}


def test_methods_do_not_need_a_published_subclass(params, config):
    """A module is its configuration: two of the same are equal and hashable, so compiled functions are shared."""
    assert MerlotReserve(config) == MerlotReserve(config)
    assert hash(MerlotReserve(config)) == hash(MerlotReserve(config))
