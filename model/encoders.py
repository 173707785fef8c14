"""The encoders of single modalities: images, sound, tokens and short texts.

Each turns raw arrays into a summary vector and, for images and sound, into pooled tokens for the joint transformer
(docs/spec/model.md 7).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from model import rotary
from model.config import ReserveConfig
from model.dense import Dense
from model.transformer import Transformer, dense


class Encoded(NamedTuple):
    """One batch of images or sounds: summaries `[n, hidden]`, sequences and pooled tokens `[n, tokens, hidden]`."""

    summary: jax.Array
    sequence: jax.Array
    pooled: jax.Array


class AttentionPool(nn.Module):
    """Multi-head attention of a window's mean over the window, with biases and without positions."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, windows: Float[Array, "*batch size hidden"]) -> Float[Array, "*batch hidden"]:
        """Return one vector for each window."""
        cfg = self.config
        init = nn.initializers.lecun_normal()

        def project(x: jax.Array, name: str) -> jax.Array:
            return Dense((cfg.heads, cfg.head_size), cfg.dtype, init, name=name)(x)

        query = project(windows.mean(axis=-2), "query")
        key, value = project(windows, "key"), project(windows, "value")
        # The windows are tiny: fused products and sums are faster here than batches of 1 x size matrix products.
        score_type = cfg.dtype if cfg.parity else jnp.float32
        scores = (query[..., None, :, :].astype(score_type) * key / cfg.head_size**0.5).sum(-1, dtype=score_type)
        weights = jax.nn.softmax(scores, axis=-2).astype(cfg.dtype)
        mixed = (weights[..., None] * value).sum(axis=-3)
        return Dense((cfg.hidden_size,), cfg.dtype, init, axes=2, name="out")(mixed)


class VisionEncoder(nn.Module):
    """A vision transformer over the patches of one image."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, images: Float[Array, "n patches values"]) -> Encoded:
        """Encode images as patches, row by row: `values` are the RGB numbers of a patch, in [0, 1]."""
        cfg = self.config
        x = dense(cfg, "embedding", cfg.hidden_size)(images)
        stack = Transformer(cfg, cfg.vision_layers, cfg.remat.vision, name="transformer")
        summary, sequence = stack(x, jnp.asarray(rotary.plane(*cfg.grid)))
        side = cfg.pooling_ratio
        rows, columns = cfg.pooled_grid
        assert summary is not None, "this stack has a summary token"
        windows = sequence.reshape(-1, rows, side, columns, side, cfg.hidden_size).swapaxes(2, 3)
        windows = windows.reshape(-1, rows * columns, side * side, cfg.hidden_size)
        return Encoded(summary, sequence, AttentionPool(cfg, name="seq_attnpool")(windows))


class AudioEncoder(nn.Module):
    """A transformer over one span of a log-mel spectrogram."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, clips: Float[Array, "n frames channels"]) -> Encoded:
        """Encode spectrograms; the last channel is the playback speed."""
        cfg = self.config
        count, frames, channels = clips.shape
        # A convolution whose width is its stride is one dense layer over the frames of each step.
        steps = clips.reshape(count, frames // cfg.audio_patch_size, cfg.audio_patch_size, channels)
        x = dense(cfg, "embedding", cfg.hidden_size, axes=2)(steps)
        length = x.shape[1]
        coordinates = rotary.line(length, centred=True)[:, None] / length
        stack = Transformer(cfg, cfg.audio_layers, cfg.remat.audio, name="transformer")
        summary, sequence = stack(x, jnp.asarray(coordinates))
        assert summary is not None, "this stack has a summary token"
        windows = sequence.reshape(count, cfg.audio_tokens, length // cfg.audio_tokens, cfg.hidden_size)
        return Encoded(summary, sequence, AttentionPool(cfg, name="seq_attnpool")(windows))


class EmbeddingTable(nn.Module):
    """The token embeddings as one parameter."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch hidden"]:
        """Return the vectors of ids; an id outside the vocabulary is read as the nearest one."""
        cfg = self.config
        narrow = cfg.hidden_size <= 768
        init = nn.initializers.normal(0.02) if narrow else nn.initializers.xavier_uniform()
        embedding = self.param("embedding", init, (cfg.vocabulary_size, cfg.hidden_size))
        return jnp.take(embedding, tokens, axis=0, mode="clip").astype(cfg.dtype)


class TokenEncoder(nn.Module):
    """Looks up the tokens of several arrays."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, tokens: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Return embeddings under the names of the token arrays, each with one more axis."""
        embed = EmbeddingTable(self.config, name="Embed_0")
        return {name: embed(ids) for name, ids in tokens.items()}


class SpanEncoder(nn.Module):
    """A small transformer that makes one vector of a short text."""

    config: ReserveConfig

    @nn.compact
    def __call__(self, x: Float[Array, "n length hidden"], valid: Bool[Array, "n length"]) -> Float[Array, "n hidden"]:
        """Return the summaries of embedded texts of fewer than 16 tokens."""
        cfg = self.config
        length = x.shape[1]
        if length >= rotary.SPAN_SCALE:
            raise ValueError(f"a text span has {length} tokens; at most {rotary.SPAN_SCALE - 1} are allowed")
        coordinates = rotary.line(length, centred=False)[:, None] / rotary.SPAN_SCALE
        stack = Transformer(cfg, cfg.span_layers, cfg.remat.span, name="transformer")
        summary, _ = stack(x, jnp.asarray(coordinates), jnp.where(valid, 0, -1))
        assert summary is not None, "this stack has a summary token"
        return summary
