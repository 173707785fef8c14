"""The encoders, the joint assembly and the published methods against golden numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.reserve import MerlotReserve

MODULES, API = "modules.npz", "api.npz"


@pytest.mark.parametrize("encoder", ["vision_encoder", "audio_encoder"])
def test_encoders(golden, params, config, compiled, encoder):
    file = golden(MODULES)
    encode = compiled(_encode_images if encoder == "vision_encoder" else _encode_audio, config)
    ours = encode(params, jnp.asarray(file[f"{encoder}/in"]))
    file.check(f"{encoder}/cls", ours.summary)
    file.check(f"{encoder}/seq", ours.sequence)
    file.check(f"{encoder}/seq_attnpool", ours.pooled)


def _encode_images(model, images):
    return model.vision_encoder(images)


def _encode_audio(model, clips):
    return model.audio_encoder(clips)


def _encode_tokens(model, tokens):
    return model.token_encoder(tokens)


def _encode_spans(model, x, valid):
    return model.span_encoder(x, valid)


def test_token_encoder(golden, params, config, compiled):
    file = golden(MODULES)
    ours = compiled(_encode_tokens, config)(params, file.under("token_encoder/in/"))
    for name in ours:
        file.check(f"token_encoder/out/{name}", ours[name], 0)


def test_span_encoder(golden, params, config, compiled):
    file = golden(MODULES)
    ours = compiled(_encode_spans, config)(params, file["span_encoder/in_x"], file["span_encoder/in_isvalid"])
    file.check("span_encoder/cls", ours)


CASES = ["full_pad_srcidx", "full_nopad_nosrc", "text_only", "vision_srcidx_nopad", "embs_given_srcidx_without_segment"]


@pytest.mark.parametrize("case", CASES)
def test_joint_assembly_and_transformer(golden, params, config, case):
    """Padding rows are compared too: without an allowed key they attend to everything alike, as published."""
    file = golden(MODULES)
    arguments = file.under(f"mm/{case}/in/")
    if "padding_len" in arguments:
        arguments["padding_len"] = int(arguments["padding_len"])

    def run(model):
        sequence = model.joint(model.assemble(**arguments))
        return model.prepare_multimodal_inputs(**arguments), sequence, model.head(sequence)

    module = MerlotReserve(config)
    published, sequence, projected = jax.jit(lambda params: module.apply({"params": params}, method=run))(params)
    for name, ours in published.items():
        file.check(f"mm/{case}/out/{name}", ours, 1e-6)
    file.check(f"mm/{case}/out/seq", sequence)
    file.check(f"mm/{case}/out/joint_proj", projected)


@pytest.fixture(scope="module")
def video(golden):
    names = ("images", "audio_clips", "tokens", "subseg_idxs")
    return [jnp.asarray(golden(API)[f"in/{name}"]) for name in names]


def test_videos(golden, params, config, compiled, video):
    file = golden(API)
    file.check("batch_embed_video/out", compiled("batch_embed_video", config)(params, *video))
    file.check("embed_video/out_example0", compiled("embed_video", config)(params, *(part[0] for part in video)))


def test_single_modalities(golden, params, config, compiled, video):
    file = golden(API)
    images, clips = video[:2]
    spans = compiled("embed_text_spans_only", config)(params, file["embed_text_spans_only/in"])
    file.check("embed_text_spans_only/out", spans)
    file.check("embed_audio_only/out_batch_dims_2", compiled("embed_audio_only", config)(params, clips))
    file.check("get_imgseq_only/out", compiled("get_imgseq_only", config)(params, images))
    file.check("get_audioseq_only/out_example0", compiled("get_audioseq_only", config)(params, clips[0]))


def test_preencoded_videos(golden, params, config, compiled, video):
    file = golden(API)
    images, _, tokens, subsegments = video
    encoded = jnp.asarray(file["get_imgseq_only/out"])
    silent = compiled("embed_preencoded_noaudio", config)(params, encoded[0], tokens[0], subsegments[0])
    file.check("embed_preencoded_noaudio/out", silent)
    sounds = jnp.asarray(file["get_audioseq_only/out_example0"])
    pointers = jnp.asarray(file["embed_preencoded_audio/in_audio_pointers"])
    heard = compiled("embed_preencoded_audio", config)(params, encoded[0], sounds, tokens[0], subsegments[0], pointers)
    file.check("embed_preencoded_audio/out", heard)
    prompted = compiled("embed_singleimg_with_multiimg_prompt", config)(
        params, encoded[0][:-1], images[1, :1], tokens[1], subsegments[1]
    )
    file.check("embed_singleimg_with_multiimg_prompt/out", prompted)


def test_without_audio_spans_the_audio_encoder_is_not_needed(params, config, compiled, video):
    images, clips, tokens, subsegments = (part[0] for part in video)
    text = jnp.where(tokens == 5, 77, tokens)
    with_clips = compiled("embed_video", config)(params, images, clips, text, subsegments)
    without = {name: value for name, value in params.items() if name != "audio_encoder"}
    alone = compiled("embed_video", config)(without, images, None, text, subsegments)
    np.testing.assert_allclose(alone, with_clips, atol=1e-6)


def test_swapped_queries_and_keys_would_show(golden, params, config, compiled, video):
    """A silent mistake in the layout of heads must change the numbers."""
    layer = params["vision_encoder"]["transformer"]["layer_00"]["attention_layer"]
    query, key, value = np.split(layer["qkv"]["kernel"], 3, axis=1)
    swapped = {**layer, "qkv": {**layer["qkv"], "kernel": np.concatenate([key, query, value], axis=1)}}
    encoder = params["vision_encoder"]
    stack = {**encoder["transformer"], "layer_00": {**encoder["transformer"]["layer_00"], "attention_layer": swapped}}
    changed = {**params, "vision_encoder": {**encoder, "transformer": stack}}
    ours = compiled("get_imgseq_only", config)(changed, video[0])
    expected = golden(API)["get_imgseq_only/out"]
    assert np.abs(ours - expected).max() > 1e-2 * np.abs(expected).max()


def test_padding_and_other_sources_do_not_reach_a_video(params, config, compiled):
    rng = np.random.default_rng(5)
    tokens = rng.integers(10, 999, (1, 12))
    tokens[:, 8:] = 0
    segments = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]])
    vision = rng.standard_normal((1, 12, config.hidden_size)).astype(np.float32)
    sources = np.array([[0, 1]])

    def run(model, tokens, vision):
        return model.joint(
            model.assemble(tokens, token_segment_idx=segments, vision_input=vision, video_src_idx=sources)
        )

    first = compiled(run, config)(params, tokens, vision)
    other_tokens, other_vision = tokens.copy(), vision.copy()
    other_tokens[:, 4:8] += 1
    other_vision[:, 6:] += 1
    second = compiled(run, config)(params, other_tokens, other_vision)
    of_first_video = [0, 1, 2, 3, *range(12, 18)]
    np.testing.assert_allclose(first[:, of_first_video], second[:, of_first_video], atol=1e-5)
    assert np.abs(first[:, 4:8] - second[:, 4:8]).max() > 1e-3
