"""From a video's arrays to answers: windows of segments, prompts with masks, options, and merging over windows.

A video is plain arrays, one entry per segment of about five seconds. Its images and sounds are encoded once; each
window of at most eight segments then meets each prompt in the joint transformer. The prompt takes the place of one
segment's sound or text, so windows overlap by one segment and everything but the first is heard (docs/spec/training.md
12).
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import jax
import numpy as np

from model.config import MASK_TEXT, ReserveConfig, Use
from model.reserve import MAX_SEGMENTS, PADDING_SEGMENT, InputError
from shards.storage import filesystem
from shards.storage.fetch import cache_folder
from shards.tokens import AUDIOSPAN, MASK, PADDING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOGIT_SCALE = 100.0
"""Cosines of unit vectors times this are logits, the cap of the learned temperature (docs/spec/model.md 13)."""

_ROWS = 8
"""Windows, images or sounds that run as one batch."""

_LABELS = 512
"""Options that run as one batch, and how many are worth keeping on disk."""


class Model(Protocol):
    """What inference needs of a model with weights; `model.pretrained.Pretrained` is one."""

    @property
    def config(self) -> ReserveConfig:
        """The configuration of the network."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the weights."""
        ...

    @property
    def digest(self) -> str:
        """A digest of what the vectors of texts depend on."""
        ...

    def get_imgseq_only(self, imgs) -> jax.Array:
        """Return pooled tokens of images as patches."""
        ...

    def get_audioseq_only(self, audio_clips) -> jax.Array:
        """Return pooled tokens of spectrograms."""
        ...

    def batch_embed_preencoded(self, images_enc, audio_enc, tokens, subseg_idxs) -> jax.Array:
        """Return unit vectors `[batch, n, hidden]` beside pooled images and sounds."""
        ...

    def embed_images_only(self, imgs) -> jax.Array:
        """Return unit vectors `[..., hidden]` of images as patches."""
        ...

    def embed_audio_only(self, audio_clips) -> jax.Array:
        """Return unit vectors `[..., hidden]` of spectrograms."""
        ...

    def embed_text_spans_only(self, text_spans) -> jax.Array:
        """Return unit vectors `[batch, hidden]` of short texts."""
        ...

    def get_label_space(self, options: Sequence[str]) -> jax.Array:
        """Return unit vectors `[options, hidden]` of answer texts."""
        ...


@dataclass(frozen=True)
class VideoInputs:
    """The segments of a video, in order.

    `images float32 [segments, patches, values]`; `audio_clips float32 [segments, subsegments, frames, bands + 1]` or
    None for a silent video; `texts` is what is said in each segment, as text or token ids, or None. `times float64
    [segments, 2]` are starts and ends in seconds, where they are known.
    """

    images: np.ndarray
    audio_clips: np.ndarray | None = None
    texts: Sequence[str | Sequence[int]] | None = None
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, parts in (("audio_clips", self.audio_clips), ("texts", self.texts), ("times", self.times)):
            if parts is not None and len(parts) != len(self.images):
                raise InputError(f"{name} has {len(parts)} segments where images has {len(self.images)}")

    def resolve(self, use: Use) -> Use:
        """Return what to use beside the images; `auto` takes sound, else text, else nothing. Raises `InputError`."""
        if use == "auto":
            return "audio" if self.audio_clips is not None else "text" if self.texts is not None else "frames"
        if use == "audio" and self.audio_clips is None:
            raise InputError("the video has no audio_clips; use its text, or its frames alone")
        if use == "text" and self.texts is None:
            raise InputError("the video has no texts; use its sound, or its frames alone")
        return use


@dataclass(frozen=True)
class Encoded:
    """A video after the encoders: pooled images `[segments, tokens, hidden]`, and pooled sounds
    `[segments, subsegments, tokens, hidden]` or None."""

    images: np.ndarray
    sounds: np.ndarray | None


@dataclass(frozen=True)
class SegmentVectors:
    """What retrieval compares: unit vectors of every segment, `float32`.

    `frame [n, hidden]`; `audio [n, subsegments, hidden]` or None; `text [n, hidden]` or None, zero where nothing is
    said; `joint [n, hidden]`, a segment in the light of its window.
    """

    frame: np.ndarray
    audio: np.ndarray | None
    text: np.ndarray | None
    joint: np.ndarray


@dataclass(frozen=True)
class WindowInputs:
    """A window, and the `int32 [n]` tokens and subsegments (-1 is padding) that go with its images and sounds."""

    window: range
    tokens: np.ndarray
    subsegments: np.ndarray

    @property
    def silent(self) -> bool:
        """Whether no token asks for sound."""
        return not (self.tokens == AUDIOSPAN).any()


@dataclass(frozen=True)
class Answers:
    """Options with their probabilities, best first, and the logits `[windows, options]` they come from.

    The columns of `logits` are in the order the options were given; its rows are the `windows`.
    """

    options: tuple[str, ...]
    probabilities: np.ndarray
    logits: np.ndarray
    windows: tuple[range, ...] = ()

    def over_time(self) -> np.ndarray:
        """Return probabilities `[windows, options]`, columns in the order the options were given."""
        return _softmax(self.logits)


def windows(segments: int, size: int = MAX_SEGMENTS, stride: int | None = None) -> list[range]:
    """Return ranges of `size` segments every `stride` (one less than `size`); the last one is moved back to be full."""
    if segments < 1 or not 1 <= size <= MAX_SEGMENTS:
        raise InputError(
            f"{segments} segments in windows of {size}: both must be at least 1, the size at most {MAX_SEGMENTS}"
        )
    stride = max(size - 1, 1) if stride is None else stride
    if not 1 <= stride <= size:
        raise InputError(f"windows of {size} segments cannot start every {stride}; give 1 to {size}")
    if segments <= size:
        return [range(segments)]
    starts = [*range(0, segments - size, stride), segments - size]
    return [range(start, start + size) for start in starts]


def window_inputs(
    model: Model,
    video: VideoInputs,
    window: range,
    prompt: Sequence[int] = (),
    prompt_segment: int = 0,
    use: Use = "auto",
) -> WindowInputs:
    """Return one window's tokens: the prompt in one segment, sound or text in the others.

    `prompt_segment` counts within the window, negative from its end. What does not fit the model's `text_length`
    is cut from the end, a sound never in parts; a prompt that does not fit raises `InputError`.
    """
    cfg = model.config
    if len(window) > MAX_SEGMENTS:
        raise InputError(f"a window has {len(window)} segments; at most {MAX_SEGMENTS} fit")
    use = video.resolve(use)
    prompt_place = prompt_segment % len(window) if prompt else None
    if len(prompt) > cfg.text_length:
        raise InputError(f"the prompt has {len(prompt)} tokens; at most {cfg.text_length} fit")
    room = cfg.text_length - len(prompt)
    token_ids: list[int] = []
    token_places: list[int] = []
    for place, segment in enumerate(window):
        first = place * cfg.subsegments
        if place == prompt_place:
            token_ids += prompt
            token_places += [first] * len(prompt)
            continue
        if use == "audio":
            ids = [AUDIOSPAN] * (cfg.subsegments * cfg.audio_tokens)
            places = [first + index // cfg.audio_tokens for index in range(len(ids))]
            fits = room // cfg.audio_tokens * cfg.audio_tokens
        else:
            ids = _ids(model, video.texts[segment]) if use == "text" and video.texts is not None else []
            places = [first] * len(ids)
            fits = room
        token_ids += ids[:fits]
        token_places += places[:fits]
        room -= len(ids[:fits])
    tokens = np.full(cfg.text_length, PADDING, np.int32)
    subsegments = np.full(cfg.text_length, PADDING_SEGMENT, np.int32)
    tokens[: len(token_ids)] = token_ids
    subsegments[: len(token_places)] = token_places
    return WindowInputs(window, tokens, subsegments)


def encode_prompt(model: Model, prompt: str) -> list[int]:
    """Return token ids of a prompt with one or more `<|MASK|>`; spaces before a mask go, since they would be tokens."""
    before, *after = prompt.split(MASK_TEXT)
    if not after:
        raise InputError(f"prompt {prompt!r} has no {MASK_TEXT}; write it where the answer belongs")
    text = MASK_TEXT.join([*(piece.rstrip() for piece in (before, *after[:-1])), after[-1]])
    return model.tokenizer.encode(text, add_special_tokens=False).ids


def encode(model: Model, video: VideoInputs, with_sound: bool) -> Encoded:
    """Run the image encoder, and the audio encoder if `with_sound`, once over every segment. Raises `InputError`."""
    images = np.concatenate([np.asarray(model.get_imgseq_only(rows))[:n] for rows, n in _padded(video.images)])
    if not with_sound:
        return Encoded(images, None)
    clips = video.audio_clips
    if clips is None:
        raise InputError("the video has no audio_clips; encode its frames alone")
    pieces = []
    for rows, n in _padded(clips):
        pooled = np.asarray(model.get_audioseq_only(rows))
        pieces.append(pooled.reshape(len(rows), clips.shape[1], *pooled.shape[1:])[:n])
    return Encoded(images, np.concatenate(pieces))


def mask_vectors(model: Model, encoded: Encoded, inputs: Sequence[WindowInputs]) -> list[np.ndarray]:
    """Return the unit vectors `[masks, hidden]` at the masks of each window; windows of one shape run as batches."""
    results: list[np.ndarray] = [np.zeros((0, model.config.hidden_size), np.float32)] * len(inputs)
    shapes: dict[tuple[int, bool], list[int]] = {}
    for index, item in enumerate(inputs):
        shapes.setdefault((len(item.window), item.silent), []).append(index)
    for (_, silent), members in shapes.items():
        for first in range(0, len(members), _ROWS):
            chosen = members[first : first + _ROWS]
            # A last batch that is not full repeats its first row, so that nothing is compiled for its size.
            rows = chosen + [chosen[0]] * (min(_ROWS, len(members)) - len(chosen))
            group = [inputs[index] for index in rows]
            sounds = None
            if encoded.sounds is not None and not silent:
                sounds = np.stack([np.concatenate(encoded.sounds[g.window.start : g.window.stop]) for g in group])
            tokens = np.stack([g.tokens for g in group])
            embedded = model.batch_embed_preencoded(
                np.stack([encoded.images[g.window.start : g.window.stop] for g in group]),
                sounds,
                tokens,
                np.stack([g.subsegments for g in group]),
            )
            vectors = np.asarray(embedded, np.float32)
            for row, index in enumerate(chosen):
                results[index] = vectors[row, tokens[row] == MASK]
    return results


def label_space(model: Model, options: Sequence[str], cache_dir: str | Path | None = None) -> np.ndarray:
    """Return unit vectors `float32 [options, hidden]` of answer texts; long lists are kept on disk by digest.

    Raises `InputError` for no options, an empty one, or one given twice; one over `span_length` tokens is cut with a
    warning.
    """
    _check_options(options)
    if len(options) < _LABELS:
        return np.asarray(model.get_label_space(options), np.float32)
    key = hashlib.sha256(json.dumps([model.digest, list(options)]).encode()).hexdigest()
    path = filesystem.join(str(cache_dir or cache_folder()), "labels", f"{key}.npy")
    if (kept := _kept_labels(path, (len(options), model.config.hidden_size))) is not None:
        return kept
    batches = [options[first : first + _LABELS] for first in range(0, len(options), _LABELS)]
    filled = [[*batch, *batches[0][: _LABELS - len(batch)]] for batch in batches]
    labels = np.concatenate([np.asarray(model.get_label_space(batch), np.float32) for batch in filled])[: len(options)]
    buffer = io.BytesIO()
    np.save(buffer, labels)
    filesystem.write_bytes(path, buffer.getvalue())
    return labels


def _kept_labels(path: str, shape: tuple[int, int]) -> np.ndarray | None:
    """Return the vectors in a file of the cache; None if there is none, or it is damaged and must be written again."""
    if not filesystem.exists(path):
        return None
    try:
        labels = np.load(io.BytesIO(filesystem.read_bytes(path)))
    except (ValueError, EOFError, OSError):
        return None
    return labels if labels.shape == shape and labels.dtype == np.float32 and np.isfinite(labels).all() else None


def answer(
    model: Model,
    video: VideoInputs,
    prompt: str,
    options: Sequence[str],
    use: Use = "auto",
    window_size: int = MAX_SEGMENTS,
    prompt_segment: int = 0,
    stride: int | None = None,
) -> Answers:
    """Return how well each option fills the one mask of a prompt, averaged over the windows of a video.

    Probabilities are a softmax over the options in each window, then their mean. The segment that carries the prompt is
    seen but not heard. Raises `InputError` for prompts, options or arrays that do not fit.
    """
    if prompt.count(MASK_TEXT) > 1:
        raise InputError(f"prompt {prompt!r} has several {MASK_TEXT}; `answer_all` answers each of them")
    return answer_all(model, video, [prompt], options, use, window_size, prompt_segment, stride)[0][0]


def answer_all(
    model: Model,
    video: VideoInputs,
    prompts: Sequence[str],
    options: Sequence[str],
    use: Use = "auto",
    window_size: int = MAX_SEGMENTS,
    prompt_segment: int = 0,
    stride: int | None = None,
    encoded: Encoded | None = None,
) -> list[list[Answers]]:
    """For each prompt, the answers at each of its masks; images, sounds and options are encoded once.

    `encoded` is what `encode` gave for this video before, to answer several times without encoding it again.
    """
    labels = label_space(model, options)
    ids = [encode_prompt(model, prompt) for prompt in prompts]
    covering = windows(len(video.images), window_size, stride)
    inputs = [window_inputs(model, video, window, prompt, prompt_segment, use) for prompt in ids for window in covering]
    if encoded is None:
        encoded = encode(model, video, any(not item.silent for item in inputs))
    vectors = mask_vectors(model, encoded, inputs)
    results = []
    for number in range(len(prompts)):
        # [windows, masks, hidden]
        stacked = np.stack(vectors[number * len(covering) : (number + 1) * len(covering)])
        logits = LOGIT_SCALE * stacked @ labels.T
        results.append([merge(options, logits[:, mask], covering) for mask in range(logits.shape[1])])
    return results


def embed_segments(model: Model, video: VideoInputs, use: Use = "auto") -> SegmentVectors:
    """Return vectors of every segment of a video: of its frame, its sounds, its words, and of all together.

    The joint vector is the output at a mask beside the segment's own sound or text, in the window it is in.
    """
    frame = np.concatenate(
        [np.asarray(model.embed_images_only(rows), np.float32)[:n] for rows, n in _padded(video.images)]
    )
    sounds = text = None
    if video.audio_clips is not None:
        pieces = [np.asarray(model.embed_audio_only(rows), np.float32)[:n] for rows, n in _padded(video.audio_clips)]
        sounds = np.concatenate(pieces)
    if video.texts is not None:
        spans = np.full((len(video.texts), model.config.span_length), PADDING, np.int32)
        for row, said in zip(spans, video.texts, strict=True):
            ids = _ids(model, said)[: len(row)]
            row[: len(ids)] = ids
        text = np.concatenate(
            [np.asarray(model.embed_text_spans_only(rows), np.float32)[:n] for rows, n in _padded(spans)]
        )
        text[(spans == PADDING).all(axis=1)] = 0
    covering = windows(len(video.images), stride=min(MAX_SEGMENTS, len(video.images)))
    inputs = [_masked_window(model, video, window, use) for window in covering]
    vectors = mask_vectors(model, encode(model, video, any(not item.silent for item in inputs)), inputs)
    joint = np.zeros_like(frame)
    for window, rows in zip(covering, vectors, strict=True):
        joint[window.start : window.stop] = rows
    return SegmentVectors(frame, sounds, text, joint)


def _masked_window(model: Model, video: VideoInputs, window: range, use: Use) -> WindowInputs:
    """Return a window with a mask in every segment, before what is heard or said there."""
    cfg = model.config
    plain = window_inputs(model, video, window, use=use)
    used = plain.tokens != PADDING
    tokens, places = plain.tokens[used], plain.subsegments[used]
    room = cfg.text_length - len(window)
    # Whole sounds only: half of one would shift the parts of all that follow.
    kept = min(len(tokens), room if plain.silent else room // cfg.audio_tokens * cfg.audio_tokens)
    tokens = np.concatenate([np.full(len(window), MASK), tokens[:kept]])
    places = np.concatenate([np.arange(len(window)) * cfg.subsegments, places[:kept]])
    order = np.argsort(places // cfg.subsegments, kind="stable")
    missing = cfg.text_length - len(tokens)
    return WindowInputs(
        window,
        np.pad(tokens[order], (0, missing), constant_values=PADDING).astype(np.int32),
        np.pad(places[order], (0, missing), constant_values=PADDING_SEGMENT).astype(np.int32),
    )


def merge(options: Sequence[str], logits: np.ndarray, covering: Sequence[range] = ()) -> Answers:
    """Merge the answers of all windows: the mean of their probabilities, best option first."""
    probabilities = _softmax(logits).mean(axis=0)
    order = np.argsort(-probabilities, kind="stable")
    return Answers(tuple(str(options[index]) for index in order), probabilities[order], logits, tuple(covering))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _padded(rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of equal size, the last one filled with zeros, and how many rows of each count."""
    size = min(_ROWS, len(rows))
    for first in range(0, len(rows), size):
        piece = np.asarray(rows[first : first + size])
        missing = size - len(piece)
        yield (
            (np.concatenate([piece, np.zeros((missing, *piece.shape[1:]), piece.dtype)]) if missing else piece),
            len(piece),
        )


def _ids(model: Model, text: str | Sequence[int]) -> list[int]:
    if isinstance(text, str):
        return _encoded(model.tokenizer, text)
    return list(text)


@functools.lru_cache(maxsize=4096)
def _encoded(tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _check_options(options: Sequence[str]) -> None:
    if not options:
        raise InputError("there are no options; give at least one text")
    seen: set[str] = set()
    for option in options:
        if not option.strip():
            raise InputError("an option is empty; give every option a text")
        if option in seen:
            raise InputError(f"option {option!r} is given twice; give it once")
        seen.add(option)
