"""A model with its weights: the published inference methods, compiled once for each shape of inputs."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import errors, traverse_util

from model import inference
from model.checkpoints import CheckpointError
from model.config import ReserveConfig
from model.inference import Answers, VideoInputs
from model.reserve import InputError, MerlotReserve, apply_method
from shards import tokenizer_file
from shards.storage.fetch import TOKENIZER, fetch
from shards.tokens import AUDIOSPAN, PADDING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Pretrained:
    """A model with its parameters: the published methods, compiled once for each shape of inputs.

    `params` are float32, in the tree of `config`. `tokenizer_file` is the path or `gs://` address of the vocabulary
    the weights were made with; None means the published one, fetched into `cache_dir` when it is first needed.
    """

    params: dict
    config: ReserveConfig
    tokenizer_file: str | None = None
    cache_dir: Path | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of these weights.

        Raises `FetchError` if it must be downloaded and cannot, `TokenizerError` if its file is damaged.
        """
        return self._tokenizer

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        file = self.tokenizer_file or str(fetch(TOKENIZER, self.cache_dir))
        return tokenizer_file.parse(tokenizer_file.read(file), file)

    @functools.cached_property
    def module(self) -> MerlotReserve:
        """The Flax module, for `module.apply({"params": params}, ..., method=...)`."""
        return MerlotReserve(self.config)

    def embed_video(self, images, audio_clips, tokens, subseg_idxs) -> jax.Array:
        """Return unit vectors `[n, hidden]`; see `MerlotReserve.embed_video`. Unused sound is not encoded."""
        tokens = self._checked(tokens)
        return self._run("embed_video", images, _needed(audio_clips, tokens), tokens, subseg_idxs)

    def batch_embed_video(self, images, audio_clips, tokens, subseg_idxs) -> jax.Array:
        """Return unit vectors `[batch, n, hidden]`; see `MerlotReserve.batch_embed_video`."""
        tokens = self._checked(tokens)
        return self._run("batch_embed_video", images, _needed(audio_clips, tokens), tokens, subseg_idxs)

    def embed_text_spans_only(self, text_spans) -> jax.Array:
        """Return unit vectors `[batch, hidden]` of short texts `[batch, n]` padded with 0."""
        return self._run("embed_text_spans_only", self._checked(text_spans))

    def embed_audio_only(self, audio_clips) -> jax.Array:
        """Return unit vectors `[..., hidden]` of spectrograms."""
        return self._run("embed_audio_only", audio_clips)

    def embed_images_only(self, imgs) -> jax.Array:
        """Return unit vectors `[..., hidden]` of images as patches."""
        return self._run("embed_images_only", imgs)

    def get_imgseq_only(self, imgs) -> jax.Array:
        """Return pooled tokens of images as patches."""
        return self._run("get_imgseq_only", imgs)

    def get_audioseq_only(self, audio_clips) -> jax.Array:
        """Return pooled tokens of spectrograms."""
        return self._run("get_audioseq_only", audio_clips)

    def embed_singleimg_with_multiimg_prompt(self, images_prompt, images, tokens, subseg_idxs) -> jax.Array:
        """Return unit vectors `[n, hidden]` with pooled images in front of others."""
        arrays = (images_prompt, images, self._checked(tokens), subseg_idxs)
        return self._run("embed_singleimg_with_multiimg_prompt", *arrays)

    def embed_preencoded_noaudio(self, images_enc, tokens, subseg_idxs) -> jax.Array:
        """Return unit vectors `[n, hidden]` beside pooled images."""
        return self._run("embed_preencoded_noaudio", images_enc, self._checked(tokens), subseg_idxs)

    def embed_preencoded_audio(self, images_enc, audio_enc, tokens, subseg_idxs, audio_pointers) -> jax.Array:
        """Return unit vectors `[n, hidden]` beside pooled images and sounds."""
        arrays = (images_enc, audio_enc, self._checked(tokens), subseg_idxs, audio_pointers)
        return self._run("embed_preencoded_audio", *arrays)

    def batch_embed_preencoded(self, images_enc, audio_enc, tokens, subseg_idxs) -> jax.Array:
        """Return unit vectors `[batch, n, hidden]` beside pooled images and sounds; see `MerlotReserve`."""
        tokens = self._checked(tokens)
        return self._run("batch_embed_preencoded", images_enc, _needed(audio_enc, tokens), tokens, subseg_idxs)

    def prepare_multimodal_inputs(self, tokens, **arguments) -> dict[str, jax.Array]:
        """Return one joint sequence from its parts; see `MerlotReserve.assemble`."""
        tokens = self._checked(tokens)
        return apply_method(self.module, self.params, "prepare_multimodal_inputs", tokens, **arguments)

    def get_label_space(self, options: Sequence[str]) -> jax.Array:
        """Return unit vectors `[options, hidden]` of texts; those over `span_length` tokens are cut with a warning."""
        if not options:
            raise InputError("there are no options; give at least one text")
        size = self.config.span_length
        spans = np.full((len(options), size), PADDING, np.int32)
        for row, option in zip(spans, options, strict=True):
            ids = self.tokenizer.encode(option, add_special_tokens=False).ids
            if len(ids) > size:
                warnings.warn(f"option {option!r} has {len(ids)} tokens and is cut to {size}", stacklevel=2)
            row[: len(ids[:size])] = ids[:size]
        return self.embed_text_spans_only(spans)

    def answer(self, video: VideoInputs, prompt: str, options: Sequence[str], **choices) -> Answers:
        """Return which option fills the `<|MASK|>` of a prompt about a video; see `model.inference.answer`."""
        return inference.answer(self, video, prompt, options, **choices)

    @property
    def digest(self) -> str:
        """What answers to texts depend on: the parameters that embed them and the type they are computed in."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        parts = {name: self.params[name] for name in ("token_encoder", "span_encoder") if name in self.params}
        state = hashlib.sha256(self.config.dtype.encode())
        for path, leaf in sorted(traverse_util.flatten_dict(parts, sep="/").items()):
            state.update(path.encode())
            state.update(np.asarray(leaf).tobytes())
        return state.hexdigest()

    @functools.cached_property
    def _compiled(self) -> dict[str, Callable]:
        return {}

    def _run(self, method: str, *arrays) -> jax.Array:
        if method not in self._compiled:
            apply = self.module.apply
            self._compiled[method] = jax.jit(lambda params, *args: apply({"params": params}, *args, method=method))
        try:
            return self._compiled[method](self.params, *arrays)
        except errors.ScopeParamNotFoundError as error:
            have = ", ".join(sorted(self.params))
            raise CheckpointError(f"{method} needs more than this finetuned checkpoint has ({have})") from error

    def _checked(self, tokens) -> np.ndarray:
        tokens = np.asarray(tokens)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.config.vocabulary_size:
            wrong = tokens.min() if tokens.min() < 0 else tokens.max()
            raise InputError(f"token {wrong} is outside the vocabulary of {self.config.vocabulary_size} ids")
        return tokens


def _needed(audio_clips, tokens: np.ndarray):
    """Return the clips if any token asks for them, else None."""
    if not (tokens == AUDIOSPAN).any():
        return None
    if audio_clips is None:
        raise InputError("tokens ask for sound, but audio_clips is None; give the clips or no AUDIOSPAN tokens")
    return audio_clips
