"""The pretraining forward: one batch in, pairs of vectors to contrast out.

Every example becomes several joint sequences, all encoded in one call; outputs are gathered where a token asks for a
frame, a sound or a text span, and only those pass the head (docs/spec/model.md 15). Randomness comes from the key
alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model.config import ReserveConfig
from model.reserve import InputError, JointInputs, MerlotReserve, apply_method, unit_normalize
from shards.tokens import LTOVPOOL, MASK, MASKAUDIO, PADDING

KINDS = ("audio2text", "audio_text_matching", "random_text", "text2audio")
"""The kinds of sequences of an example, in the order of their rows; a batch may go without `random_text`."""

SPAN_SOURCES = ("text2audio", "audio2text", "random_text")
"""Kinds whose MASK outputs predict text spans; their index is a pair's `_sources` label."""

_MAX_LOG_SCALE = math.log(100.0)
_VALID_BONUS = 1e6

Outputs = dict[str, dict[str, jax.Array]]


def pretraining_outputs(
    module: MerlotReserve, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array
) -> Outputs:
    """Compute the pairs of each objective (docs/spec/model.md 15.8), for `model.losses.contrastive`.

    `batch` has the arrays of docs/spec/model.md 15.1 with `b` examples in front; it is not changed. `rng` is one key,
    or keys `[g]` of which each makes the random choices of the next b / g examples, so that these do not depend on how
    a batch is laid over devices.

    Pairs are in the order of their examples. Each objective has `x` and `y [pairs, hidden]`; `text_to_audio` also
    `y_extra`; `stuff_to_span` also `_sources` (-1 for nowhere), `_spans` (each pair's flat span index, ascending)
    and `_tokens`. With `config.mask_invalid_pairs` each has `_valid bool [pairs]`. Raises `InputError` for batches that
    do not fit the model.
    """
    return apply_method(module, params, _forward, batch, rng)


def batch_shapes(config: ReserveConfig, examples: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the arrays of a batch of `examples` that `pretraining_outputs` takes (docs/spec/model.md 15.1)."""
    tokens = {
        "text2audio": (config.groups * config.text2audio_sequences, config.text_length),
        "audio2text": (config.groups * config.audio2text_sequences, config.text_length),
        "audio_text_matching": (1, config.sequence_length),
    }
    if config.random_text_sequences:
        tokens["random_text"] = (config.random_text_sequences, config.sequence_length)
    ints = {f"{kind}{part}": shape for kind, shape in tokens.items() for part in ("", "/audio_ptr", "/text_ptr")}
    ints |= {"text_spans": (config.spans_per_example, config.span_length), "video_src_index": (config.segments,)}
    floats = {
        "images": (config.segments * config.patches, config.patch_values),
        "audio_clips": (config.audio_spans * config.audio_frames, config.mel_bands + 1),
    }
    shapes = {name: jax.ShapeDtypeStruct((examples, *shape), jnp.int32) for name, shape in ints.items()}
    return shapes | {name: jax.ShapeDtypeStruct((examples, *s), config.dtype) for name, s in floats.items()}


def one_hot_pool(
    do_pool: jax.Array, idx: jax.Array, v: jax.Array, size: int, real_bsize: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return sums `[rows, size, hidden]` of the vectors `v [batch, n, hidden]` that are to be pooled, by their index.

    Also the one-hot weights `[rows, n', size]`. `real_bsize` first joins the sequences of each example; an index
    outside `0..size-1` is left out (docs/spec/model.md 10).
    """
    rows = do_pool.shape[0] if real_bsize is None else real_bsize
    places = jnp.where(do_pool, idx, -1).reshape(rows, -1)
    weights = jax.nn.one_hot(places, size, dtype=v.dtype)
    return jnp.einsum("bps,bph->bsh", weights, v.reshape(rows, -1, v.shape[-1])), weights


def split_context(rng: jax.Array, video_src_idx: jax.Array, probability: float) -> jax.Array:
    """With `probability`, cut each row of sources `[rows, segments]` into two videos at a random segment.

    The later part gets ids of its own (docs/spec/model.md 15.4).
    """
    rows, count = video_src_idx.shape
    if count == 1 or probability == 0:
        return video_src_idx
    odds = jnp.asarray([probability / (count - 1)] * (count - 1) + [1 - probability])
    cut = 1 + jax.random.choice(rng, count, (rows, 1), p=odds)
    return jnp.where(jnp.arange(count) >= cut, video_src_idx + 4 * count, video_src_idx)


def choose_spans(rng: jax.Array, valid: jax.Array, multimodal: jax.Array, config: ReserveConfig) -> jax.Array:
    """Flat indices, ascending, of the spans that enter the loss, from `valid [b, spans]` and multimodal counts.

    Valid spans come first and those of the video are preferred four to one, by Gumbel noise (docs/spec/model.md 15.7).
    """
    examples, spans = valid.shape
    noise = -jnp.log(-jnp.log(jax.random.uniform(rng, valid.shape)))
    score = math.log(4.0) * multimodal.astype(jnp.float32) + noise
    if config.span_choice == "group":
        group = config.span_group
        if examples % group:
            raise InputError(f"{examples} examples are no whole groups of {group}; change the batch or span_group")
        score = valid.astype(jnp.float32) * _VALID_BONUS + score
    else:
        group = 1
        score = jnp.where(valid, score, -jnp.inf)
    score = score.reshape(-1, group * spans)
    chosen = jax.lax.top_k(score, config.spans_to_include * group)[1]
    first = jnp.arange(score.shape[0])[:, None] * group * spans
    return jnp.sort((chosen + first).reshape(-1))


class _Sequences(NamedTuple):
    """The token rows of a batch by kind: tokens and pointers to sounds and spans `[examples, rows, n]`, and vectors."""

    tokens: dict[str, jax.Array]
    audio_pointers: dict[str, jax.Array]
    text_pointers: dict[str, jax.Array]
    embedded: dict[str, jax.Array]


class _Keys(NamedTuple):
    """The keys of the random choices, each `[groups]`."""

    audio_context: jax.Array
    text_context: jax.Array
    spans: jax.Array


def _forward(model: MerlotReserve, batch: Mapping[str, jax.Array], rng: jax.Array) -> Outputs:
    cfg = model.config
    _check_batch(batch, cfg)
    keys = _keys(rng)
    images = model.vision_encoder(batch["images"].reshape(-1, cfg.patches, cfg.patch_values))
    audio = model.audio_encoder(batch["audio_clips"].reshape(-1, cfg.audio_frames, cfg.mel_bands + 1))
    sequences = _sequences(model, batch)
    outputs = _joint_outputs(model, _joint_inputs(model, batch, sequences, images.pooled, audio.pooled, keys))
    outputs = {kind: hidden[:, :, : sequences.tokens[kind].shape[2]] for kind, hidden in outputs.items()}
    pairs = {
        "imgs_to_audio": _image_pairs(model, sequences, outputs, images.summary),
        "text_to_audio": _audio_pairs(model, sequences, outputs, audio.summary),
        "stuff_to_span": _span_pairs(model, sequences, outputs, batch["text_spans"], keys.spans),
    }
    return _scaled(pairs, model.contrastive_scales, cfg)


def _keys(rng: jax.Array) -> _Keys:
    """Three keys from each of those given, as the published system splits its one."""
    typed = rng if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(rng)
    split = jax.vmap(lambda key: jax.random.split(key, 3))(typed.reshape(-1))
    return _Keys(split[:, 0], split[:, 1], split[:, 2])


def _by_group(keys: jax.Array, array: jax.Array) -> jax.Array:
    """`[groups, members, ...]` of an array whose first axis is in the order of the examples."""
    return array.reshape(len(keys), -1, *array.shape[1:])


def _check_batch(batch: Mapping[str, jax.Array], cfg: ReserveConfig) -> None:
    """Raise `InputError` unless all arrays of a batch are there and fit the model."""
    needed = ["images", "audio_clips", "text_spans", "video_src_index"]
    for kind in KINDS:
        if kind != "random_text" or kind in batch:
            needed += [kind, f"{kind}/audio_ptr", f"{kind}/text_ptr"]
    if missing := [name for name in needed if name not in batch]:
        raise InputError(f"the batch has no {', '.join(missing)}")
    examples = batch["images"].shape[0]
    expected = {
        "images": (examples, cfg.segments * cfg.patches, cfg.patch_values),
        "audio_clips": (examples, cfg.audio_spans * cfg.audio_frames, cfg.mel_bands + 1),
        "video_src_index": (examples, cfg.segments),
    }
    for name, shape in expected.items():
        if batch[name].shape != shape:
            raise InputError(f"batch[{name!r}] has shape {batch[name].shape}; the model needs {shape}")
    if batch["text_spans"].shape[1] < cfg.spans_to_include:
        raise InputError(
            f"batch['text_spans'] has {batch['text_spans'].shape[1]} spans an example; "
            f"spans_to_include is {cfg.spans_to_include}"
        )


def _sequences(model: MerlotReserve, batch: Mapping[str, jax.Array]) -> _Sequences:
    """Return all token rows of a batch, embedded together with its text spans in one look-up.

    They are joined within their examples, because joining along a split axis would move them between devices.
    """
    kinds = [kind for kind in KINDS if kind in batch and batch[kind].shape[1]]

    def rows(suffix: str) -> dict[str, jax.Array]:
        return {kind: batch[kind + suffix] for kind in kinds}

    tokens = rows("") | {"text_spans": batch["text_spans"]}
    examples = len(batch["text_spans"])
    flat = [ids.reshape(examples, -1) for ids in tokens.values()]
    vectors = model.token_encoder({"all": jnp.concatenate(flat, axis=1)})["all"]
    parts = jnp.split(vectors, np.cumsum([ids.shape[1] for ids in flat])[:-1], axis=1)
    embedded = {name: part.reshape(*ids.shape, -1) for (name, ids), part in zip(tokens.items(), parts, strict=True)}
    return _Sequences(rows(""), rows("/audio_ptr"), rows("/text_ptr"), embedded)


def _joint_inputs(
    model: MerlotReserve,
    batch: Mapping[str, jax.Array],
    sequences: _Sequences,
    images: jax.Array,
    audio: jax.Array,
    keys: _Keys,
) -> dict[str, JointInputs]:
    """Return the joint sequences of every kind from pooled images and sounds, rows in the order of examples.

    See docs/spec/model.md 15.3.
    """
    cfg = model.config
    examples = batch["images"].shape[0]
    vision = images.reshape(examples, cfg.groups, -1, cfg.hidden_size) * (1 if cfg.use_vision else 0)
    sounds = audio.reshape(examples, cfg.audio_spans, cfg.audio_tokens, cfg.hidden_size)
    sources = batch["video_src_index"].reshape(examples, cfg.groups, cfg.segments_per_group)

    def per_row(groups: jax.Array, rows: int) -> jax.Array:
        """Rows (example, sequence, group) of what each group has, `[examples, groups, ...]`."""
        tiled = jnp.repeat(groups[:, None], rows // cfg.groups, axis=1)
        return tiled.reshape(examples * rows, *groups.shape[2:])

    def assemble(kind: str, hears: bool = False, **arguments) -> JointInputs:
        return model.assemble(
            _rows(sequences.tokens[kind]),
            token_embs=_rows(sequences.embedded[kind]),
            audio_spans=jnp.repeat(sounds, sequences.tokens[kind].shape[1], axis=0) if hears else None,
            audio_pointers=_rows(sequences.audio_pointers[kind]),
            padding_len=cfg.sequence_length,
            **arguments,
        )

    inputs = {}
    for kind, tokens in sequences.tokens.items():
        if kind == "random_text":
            inputs[kind] = assemble(kind)
        elif kind == "audio_text_matching":
            running = jnp.cumsum(_rows(tokens) == LTOVPOOL, axis=1)
            inputs[kind] = assemble(kind, hears=True, token_segment_idx=running)
        else:
            hears = kind == "audio2text"
            split = jax.vmap(split_context, in_axes=(0, 0, None))
            of_rows = per_row(sources, tokens.shape[1])
            context = keys.audio_context if hears else keys.text_context
            videos = split(context, _by_group(context, of_rows), cfg.context_split_probability)
            pointers = _rows(sequences.audio_pointers[kind])
            inputs[kind] = assemble(
                kind,
                hears=hears,
                token_segment_idx=pointers // cfg.subsegments % cfg.segments_per_group,
                vision_input=per_row(vision, tokens.shape[1]),
                video_src_idx=videos.reshape(of_rows.shape),
            )
    return {kind: jax.tree.map(partial(_by_example, examples), part) for kind, part in inputs.items()}


def _joint_outputs(model: MerlotReserve, inputs: dict[str, JointInputs]) -> dict[str, jax.Array]:
    """Return the joint transformer over the rows of all kinds at once, `[examples, rows, n, hidden]` of each kind.

    Rows are joined within their examples, because joining along a split axis would move them between devices.
    """
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *inputs.values())
    examples = joined.x.shape[0]
    hidden = _by_example(examples, model.joint(jax.tree.map(_rows, joined)))
    ends = np.cumsum([part.x.shape[1] for part in inputs.values()])
    return dict(zip(inputs, jnp.split(hidden, ends[:-1], axis=1), strict=True))


def _image_pairs(
    model: MerlotReserve, sequences: _Sequences, outputs: dict[str, jax.Array], summaries: jax.Array
) -> dict[str, jax.Array]:
    """Outputs at LTOVPOOL beside the frames in their order (docs/spec/model.md 15.5)."""
    size = model.config.segments
    asks = sequences.tokens["audio_text_matching"] == LTOVPOOL
    order = jnp.cumsum(asks, axis=2) - 1
    pooled, weights = one_hot_pool(asks, order, outputs["audio_text_matching"], size, len(asks))
    counts = weights.sum(axis=1)
    return {"x": _flat(model.head(pooled, counts)), "y": summaries, "_valid": (counts > 0).reshape(-1)}


def _audio_pairs(
    model: MerlotReserve, sequences: _Sequences, outputs: dict[str, jax.Array], summaries: jax.Array
) -> dict[str, jax.Array]:
    """Outputs at MASKAUDIO beside their sounds; the other sounds are extra negatives (docs/spec/model.md 15.6)."""
    cfg, kind = model.config, "text2audio"
    asks = sequences.tokens[kind] == MASKAUDIO
    pooled, weights = one_hot_pool(asks, sequences.audio_pointers[kind], outputs[kind], cfg.audio_spans, len(asks))
    counts = weights.sum(axis=1)
    order = jnp.argsort(-counts, axis=1, stable=True)
    chosen, others = jnp.split(order, [cfg.targets * cfg.text2audio_sequences], axis=1)
    sounds = summaries.reshape(len(asks), cfg.audio_spans, -1)
    chosen_counts = jnp.take_along_axis(counts, chosen, axis=1)
    return {
        "x": _flat(model.head(_rows_at(pooled, chosen), chosen_counts)),
        "y": _flat(_rows_at(sounds, chosen)),
        "y_extra": _flat(_rows_at(sounds, others)),
        "_valid": (chosen_counts > 0).reshape(-1),
    }


def _span_pairs(
    model: MerlotReserve,
    sequences: _Sequences,
    outputs: dict[str, jax.Array],
    spans: jax.Array,
    keys: jax.Array,
) -> dict[str, jax.Array]:
    """Outputs at MASK beside their text spans `[examples, spans, length]`; only those chosen are encoded.

    See docs/spec/model.md 15.7.
    """
    examples, per_example = spans.shape[:2]
    parts: list[jax.Array] = []
    counts: list[jax.Array] = []
    for kind in SPAN_SOURCES:
        if kind not in sequences.tokens:
            counts.append(jnp.zeros((examples, per_example)))
            continue
        asks = sequences.tokens[kind] == MASK
        x, weights = one_hot_pool(asks, sequences.text_pointers[kind], outputs[kind], per_example, examples)
        parts.append(x)
        counts.append(weights.sum(axis=1, dtype=jnp.float32))
    pooled, total = reduce(jnp.add, parts), reduce(jnp.add, counts)
    sources = jnp.argmax(jnp.stack([jnp.zeros_like(total), *counts]), axis=0) - 1
    valid = (spans != PADDING).any(axis=-1) & (total > 0)

    grouped = partial(_by_group, keys)
    choose = jax.vmap(partial(choose_spans, config=model.config))
    chosen = choose(keys, grouped(valid), grouped(counts[0] + counts[1]))

    def of_chosen(array: jax.Array) -> jax.Array:
        """Return entries `[pairs, ...]` of `[examples, spans, ...]`; every group looks only among its own."""
        flat = grouped(array).reshape(len(keys), -1, *array.shape[2:])
        places = chosen.reshape(*chosen.shape, *(1,) * (array.ndim - 2))
        return jnp.take_along_axis(flat, places, axis=1).reshape(-1, *array.shape[2:])

    tokens = of_chosen(spans)
    starts = jnp.arange(len(keys))[:, None] * (examples // len(keys) * per_example)
    return {
        "x": model.head(of_chosen(pooled), of_chosen(total)),
        "y": model.span_encoder(of_chosen(sequences.embedded["text_spans"]), tokens != PADDING),
        "_sources": of_chosen(sources).astype(jnp.int32),
        "_spans": (starts + chosen).reshape(-1),
        "_tokens": tokens,
        "_valid": of_chosen(valid),
    }


def _scaled(pairs: Outputs, contrastive_scales: jax.Array, cfg: ReserveConfig) -> Outputs:
    """Vectors whose products are cosines times each objective's temperature (docs/spec/model.md 15.8)."""
    scales = jnp.exp(jnp.minimum(contrastive_scales.astype(jnp.float32), _MAX_LOG_SCALE) / 2)
    scaled: Outputs = {}
    for scale, (objective, arrays) in zip(scales, pairs.items(), strict=True):
        scaled[objective] = {}
        for name, array in arrays.items():
            if name in ("x", "y", "y_extra"):
                wide = array if cfg.parity else array.astype(jnp.float32)
                array = (unit_normalize(wide) * scale).astype(cfg.dtype)
            if name != "_valid" or cfg.mask_invalid_pairs:
                scaled[objective][name] = array
    return scaled


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _rows(x: jax.Array) -> jax.Array:
    """`[examples * rows, ...]` of `[examples, rows, ...]`."""
    return x.reshape(-1, *x.shape[2:])


def _by_example(examples: int, x: jax.Array) -> jax.Array:
    """`[examples, rows, ...]` of `[examples * rows, ...]`."""
    return x.reshape(examples, -1, *x.shape[1:])


def _rows_at(x: jax.Array, places: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, places[..., None], axis=1)
