"""The whole network: four encoders, the joint transformer and its head, with the published inference methods.

Methods are pure functions of parameters and arrays, called through `module.apply(..., method=...)`; `model.published`
wraps them for people. Nothing is computed that an output does not need (docs/spec/model.md 8, 9, 13).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from model import rotary
from model.attention import PADDING_ID, attention_mask
from model.config import ReserveConfig
from model.dense import affine
from model.encoders import AudioEncoder, SpanEncoder, TokenEncoder, VisionEncoder
from model.transformer import Transformer, kernel_initializer
from shards.tokens import AUDIOSPAN, PADDING

MAX_SEGMENTS = 8
"""Most segments of a video the joint transformer has learned to see at once."""

PADDING_SEGMENT = PADDING_ID
_NORM_EPSILON = 1e-5


class InputError(ValueError):
    """Arrays that do not fit the model; the message names the shape or value and what would be right."""


@struct.dataclass
class JointInputs:
    """What the joint transformer reads: text, then vision, then padding.

    `x [batch, n, hidden]`, `coordinates float32 [batch, n, 4]`, `segment_ids int32 [batch, n]`: tokens attend to
    tokens of their own id, and -1 is padding.
    """

    x: jax.Array
    coordinates: jax.Array
    segment_ids: jax.Array


def unit_normalize(x: jax.Array) -> jax.Array:
    """Return vectors of length 1 along the last axis, computed in float32; zero stays zero (docs/spec/model.md 10)."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.square(wide).sum(-1, keepdims=True) + _NORM_EPSILON)).astype(x.dtype)


class Head(nn.Module):
    """The linear map from joint outputs to the space where they are compared."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, x: jax.Array, counts: jax.Array | None = None) -> jax.Array:
        """Project `x [..., hidden]`; where `x` sums `counts [...]` outputs, give the sum of their projections."""
        cfg = self.config
        kernel = self.param("kernel", kernel_initializer(cfg), (cfg.hidden_size, cfg.hidden_size))
        bias = self.param("bias", nn.initializers.zeros, (cfg.hidden_size,))
        if counts is None:
            return affine(x, kernel, bias, 1)
        biases: jax.Array = affine(counts[..., None].astype(cfg.dtype), bias[None], None, 1)
        projected: jax.Array = affine(x, kernel, None, 1)
        return projected + biases


class MerlotReserve(nn.Module):
    """The network of `config`; parameters as in docs/spec/model.md 12."""

    config: ReserveConfig

    def setup(self) -> None:
        """Declare the parts under their published names."""
        cfg = self.config
        self.vision_encoder = VisionEncoder(cfg)
        self.audio_encoder = AudioEncoder(cfg)
        self.token_encoder = TokenEncoder(cfg)
        self.span_encoder = SpanEncoder(cfg)
        self.joint_transformer = Transformer(cfg, cfg.joint_layers, cfg.remat.joint, summary=False)
        self.head = Head(cfg)
        scales = nn.initializers.constant(cfg.initial_log_scale)
        self.contrastive_scales = self.param("contrastive_scales", scales, (3,))

    def __call__(self, images: jax.Array, audio_clips: jax.Array, tokens: jax.Array, spans: jax.Array):
        """Run every part once, so that every parameter is made: a video's joint output and the span vectors."""
        subsegments = jnp.zeros_like(tokens)
        self.audio_encoder(audio_clips)
        return self.embed_video(images, audio_clips, tokens, subsegments), self.embed_text_spans_only(spans)

    def embed_text_spans_only(self, text_spans: Int[Array, "batch n"]) -> Float[Array, "batch hidden"]:
        """Return unit vectors of texts of fewer than 16 tokens, padded with 0."""
        embedded = self.token_encoder({"spans": text_spans})["spans"]
        return unit_normalize(self.span_encoder(embedded, text_spans != PADDING))

    def embed_audio_only(self, audio_clips: Float[Array, "*batch frames channels"]) -> Float[Array, "*batch hidden"]:
        """Return unit vectors of spectrograms."""
        summary = self.audio_encoder(self._flat_clips(audio_clips)).summary
        return unit_normalize(summary).reshape(*audio_clips.shape[:-2], -1)

    def embed_images_only(self, imgs: Float[Array, "*batch patches values"]) -> Float[Array, "*batch hidden"]:
        """Return unit vectors of images as patches, trained to be near their sound and words."""
        summary = self.vision_encoder(self._flat_images(imgs)).summary
        return unit_normalize(summary).reshape(*imgs.shape[:-2], -1)

    def get_imgseq_only(self, imgs: Float[Array, "*batch patches values"]) -> Float[Array, "*batch tokens hidden"]:
        """Return pooled tokens of images as patches."""
        pooled = self.vision_encoder(self._flat_images(imgs)).pooled
        return pooled.reshape(*imgs.shape[:-2], *pooled.shape[1:])

    def get_audioseq_only(self, audio_clips: Float[Array, "*batch frames channels"]) -> Float[Array, "n tokens hidden"]:
        """Return pooled tokens of spectrograms; leading axes are joined."""
        return self.audio_encoder(self._flat_clips(audio_clips)).pooled

    def embed_video(
        self,
        images: Float[Array, "segments patches values"],
        audio_clips: Float[Array, "subsegments frames channels"] | None,
        tokens: Int[Array, "n"],
        subseg_idxs: Int[Array, "n"],
    ) -> Float[Array, "n hidden"]:
        """Return unit vectors of a video's tokens, each in its subsegment, -1 for padding.

        There may be no `audio_clips` if no token is an AUDIOSPAN.
        """
        batched = (images[None], None if audio_clips is None else audio_clips[None], tokens[None], subseg_idxs[None])
        return self.batch_embed_video(*batched)[0]

    def batch_embed_video(
        self,
        images: Float[Array, "batch segments patches values"],
        audio_clips: Float[Array, "batch subsegments frames channels"] | None,
        tokens: Int[Array, "batch n"],
        subseg_idxs: Int[Array, "batch n"],
    ) -> Float[Array, "batch n hidden"]:
        """Return `embed_video` of several videos."""
        vision = self.get_imgseq_only(images)
        spans = None
        if audio_clips is not None:
            spans = self.get_audioseq_only(audio_clips)
            spans = spans.reshape(*audio_clips.shape[:2], *spans.shape[1:])
        return self._embed(vision, spans, tokens, subseg_idxs, subseg_idxs)

    def embed_singleimg_with_multiimg_prompt(
        self,
        images_prompt: Float[Array, "pooled tokens hidden"],
        images: Float[Array, "segments patches values"],
        tokens: Int[Array, "n"],
        subseg_idxs: Int[Array, "n"],
    ) -> Float[Array, "n hidden"]:
        """Return `embed_video` without sound, after images that are pooled already."""
        vision = jnp.concatenate([images_prompt, self.get_imgseq_only(images)])
        return self.embed_preencoded_noaudio(vision, tokens, subseg_idxs)

    def embed_preencoded_noaudio(
        self,
        images_enc: Float[Array, "segments tokens hidden"],
        tokens: Int[Array, "n"],
        subseg_idxs: Int[Array, "n"],
    ) -> Float[Array, "n hidden"]:
        """Return `embed_video` without sound, of images that are pooled already."""
        vision = images_enc.reshape(1, -1, self.config.tokens_per_image, images_enc.shape[-1])
        return self._embed(vision, None, tokens[None], subseg_idxs[None], None)[0]

    def embed_preencoded_audio(
        self,
        images_enc: Float[Array, "segments image_tokens hidden"],
        audio_enc: Float[Array, "spans audio_tokens hidden"],
        tokens: Int[Array, "n"],
        subseg_idxs: Int[Array, "n"],
        audio_pointers: Int[Array, "n"],
    ) -> Float[Array, "n hidden"]:
        """Return `embed_video` of pooled images and pooled sounds, with the span of each token."""
        vision = images_enc.reshape(1, -1, self.config.tokens_per_image, images_enc.shape[-1])
        return self._embed(vision, audio_enc[None], tokens[None], subseg_idxs[None], audio_pointers[None])[0]

    def batch_embed_preencoded(
        self,
        images_enc: Float[Array, "batch segments image_tokens hidden"],
        audio_enc: Float[Array, "batch subsegments audio_tokens hidden"] | None,
        tokens: Int[Array, "batch n"],
        subseg_idxs: Int[Array, "batch n"],
    ) -> Float[Array, "batch n hidden"]:
        """Return `batch_embed_video` of pooled images and pooled sounds.

        There may be no `audio_enc` if no token is an AUDIOSPAN.
        """
        return self._embed(images_enc, audio_enc, tokens, subseg_idxs, subseg_idxs)

    def prepare_multimodal_inputs(self, tokens: jax.Array, **arguments) -> dict[str, jax.Array]:
        """Return `assemble` in the published form: `x`, `rotary_coords` and the mask `bool [batch, n, n]`."""
        joint = self.assemble(tokens, **arguments)
        mask = attention_mask(joint.segment_ids)
        return {"x": joint.x, "rotary_coords": joint.coordinates, "attention_mask": mask}

    def assemble(
        self,
        tokens: Int[Array, "batch n"],
        token_segment_idx: Int[Array, "batch n"] | None = None,
        token_embs: Float[Array, "batch n hidden"] | None = None,
        vision_input: Float[Array, "batch image_tokens hidden"] | None = None,
        audio_spans: Float[Array, "batch spans audio_tokens hidden"] | None = None,
        audio_pointers: Int[Array, "batch n"] | None = None,
        padding_len: int | None = None,
        video_src_idx: Int[Array, "batch segments"] | None = None,
    ) -> JointInputs:
        """Return one joint sequence of text, sound and images for each row (docs/spec/model.md 8).

        `vision_input` are the pooled tokens of whole images; `video_src_idx` is not negative. Raises `InputError` for
        shapes that do not fit.
        """
        cfg = self.config
        x = self.token_encoder({"tokens": tokens})["tokens"] if token_embs is None else token_embs.astype(cfg.dtype)
        if audio_spans is not None and audio_pointers is not None:
            x = self._with_audio(x, tokens, audio_spans, audio_pointers)
        positions = jnp.broadcast_to(jnp.arange(1, tokens.shape[1] + 1), tokens.shape)
        coordinates = rotary.multimodal(segment=token_segment_idx, token=positions)
        sources = None
        if video_src_idx is not None and token_segment_idx is not None:
            sources = video_src_idx.astype(jnp.int32)
        segment_ids = jnp.where(tokens != PADDING, _source_of(sources, token_segment_idx), PADDING_SEGMENT)
        if vision_input is not None:
            segments, vision_coordinates = self._vision_places(vision_input.shape)
            x = jnp.concatenate([x, vision_input.astype(cfg.dtype)], axis=1)
            coordinates = jnp.concatenate([coordinates, vision_coordinates], axis=1)
            ids = jnp.broadcast_to(_source_of(sources, segments), segments.shape)
            segment_ids = jnp.concatenate([segment_ids, ids], axis=1)
        missing = 0 if padding_len is None else padding_len - x.shape[1]
        if missing < 0:
            raise InputError(f"a joint sequence has {x.shape[1]} tokens; padding_len is only {padding_len}")
        rows, columns = (0, 0), (0, missing)
        return JointInputs(
            jnp.pad(x, (rows, columns, (0, 0))),
            jnp.pad(coordinates, (rows, columns, (0, 0))),
            jnp.pad(segment_ids, (rows, columns), constant_values=PADDING_SEGMENT),
        )

    def joint(self, inputs: JointInputs) -> Float[Array, "batch n hidden"]:
        """Return the joint transformer's outputs, before the head; classifiers read these."""
        return self.joint_transformer(inputs.x, inputs.coordinates, inputs.segment_ids)[1]

    def _embed(self, vision, audio_spans, tokens, subseg_idxs, audio_pointers) -> jax.Array:
        """Return unit vectors `[batch, n, hidden]` of tokens beside pooled images."""
        segments = vision.shape[1]
        if segments > MAX_SEGMENTS:
            raise InputError(f"a video has {segments} segments; at most {MAX_SEGMENTS} fit, so cut it in windows")
        inputs = self.assemble(
            tokens,
            token_segment_idx=subseg_idxs // self.config.subsegments,
            vision_input=vision.reshape(vision.shape[0], -1, vision.shape[-1]),
            audio_spans=audio_spans,
            audio_pointers=audio_pointers,
        )
        return unit_normalize(self.head(self.joint(inputs)[:, : tokens.shape[1]]))

    def _with_audio(self, x, tokens, audio_spans, audio_pointers) -> jax.Array:
        """Replace each AUDIOSPAN by the next of its span's pooled tokens, counted over the sequence."""
        batch, spans, size, hidden = audio_spans.shape
        if size != self.config.audio_tokens:
            raise InputError(f"audio spans have {size} tokens; this model has {self.config.audio_tokens}")
        is_audio = tokens == AUDIOSPAN
        within = jnp.maximum(jnp.cumsum(is_audio, axis=1) - 1, 0) % size
        places = jnp.clip(audio_pointers, 0, spans - 1) * size + within
        sounds = jnp.take_along_axis(audio_spans.reshape(batch, spans * size, hidden), places[..., None], axis=1)
        return jnp.where(is_audio[..., None], sounds.astype(x.dtype), x)

    def _vision_places(self, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Segment indices `[batch, n]` and coordinates `[batch, n, 4]` of pooled vision tokens."""
        cfg = self.config
        batch, length = shape[:2]
        images, rest = divmod(length, cfg.tokens_per_image)
        if rest:
            raise InputError(f"{length} vision tokens are no whole images of {cfg.tokens_per_image}; check the grid")
        segments = jnp.broadcast_to(jnp.arange(length) // cfg.tokens_per_image, (batch, length))
        places = np.tile(rotary.plane(*cfg.pooled_grid), (images, 1))
        row, column = (jnp.broadcast_to(places[:, axis], (batch, length)) for axis in (0, 1))
        return segments, rotary.multimodal(row, column, segments)

    def _flat_images(self, images: jax.Array) -> jax.Array:
        cfg = self.config
        if images.shape[-2:] != (cfg.patches, cfg.patch_values):
            raise InputError(
                f"images have shape {images.shape}; grid {cfg.grid} needs [..., {cfg.patches}, {cfg.patch_values}], "
                "so resize them or load the model with their grid"
            )
        return images.reshape(-1, *images.shape[-2:])

    def _flat_clips(self, clips: jax.Array) -> jax.Array:
        expected = (self.config.audio_frames, self.config.mel_bands + 1)
        if clips.shape[-2:] != expected:
            raise InputError(f"audio clips have shape {clips.shape}; [..., {expected[0]}, {expected[1]}] is needed")
        return clips.reshape(-1, *expected)


def _source_of(sources: jax.Array | None, segments: jax.Array | None) -> jax.Array:
    """Return the source of each token's segment; negative segments wrap once, others beyond the end are the last."""
    if sources is None or segments is None:
        return jnp.int32(0)
    count = sources.shape[1]
    segments = jnp.clip(jnp.where(segments < 0, segments + count, segments), 0, count - 1)
    return jnp.take_along_axis(sources, segments, axis=1)


def apply_method(module: MerlotReserve, params: Mapping, method: Callable | str, *arrays: Any, **named: Any) -> Any:
    """Return what a method of the network, or a function of a bound one, computes with `params`."""
    return module.apply({"params": params}, *arrays, method=method, **named)


def initial_parameters(config: ReserveConfig, rng: jax.Array) -> dict:
    """Return fresh float32 parameters (docs/spec/model.md 11)."""
    variables: Any = MerlotReserve(config).init(rng, *_smallest_inputs(config))
    return variables["params"]


def parameter_shapes(config: ReserveConfig) -> dict:
    """Return the parameter tree as nested dicts of `jax.ShapeDtypeStruct`; nothing is allocated."""
    return jax.tree.map(lambda leaf: leaf, _parameter_shapes(config))


@functools.cache
def _parameter_shapes(config: ReserveConfig) -> dict:
    # Tracing a large model takes seconds, and loading, verifying and exporting ask for its shapes.
    return jax.eval_shape(lambda rng: initial_parameters(config, rng), jax.random.key(0))


def _smallest_inputs(config: ReserveConfig) -> tuple[jax.Array, ...]:
    images = jnp.zeros((1, config.patches, config.patch_values))
    clips = jnp.zeros((config.subsegments, config.audio_frames, config.mel_bands + 1))
    return images, clips, jnp.ones((1,), jnp.int32), jnp.ones((1, config.span_length), jnp.int32)
