"""From a video's arrays to answers: windows of segments, prompts with a mask, options, and merging over windows.

A video is plain arrays, one entry per segment of about five seconds. Each window of at most eight segments becomes one
input of the network; the prompt takes the text of one segment, the others are heard or read (spec training.md 12, 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.published import LOGIT_SCALE, Pretrained
from model.reserve import MAX_SEGMENTS, PADDING_SEGMENT, InputError
from shards.tokens import AUDIOSPAN, MASK, PADDING, SPECIAL_TOKENS

MASK_TEXT = SPECIAL_TOKENS[MASK]


@dataclass(frozen=True)
class VideoInputs:
    """The segments of a video, in order.

    `images float32 [segments, patches, values]`; `audio_clips float32 [segments, subsegments, frames, bands + 1]` or
    None for a silent video; `texts` are token ids of what is said in each segment, or None.
    """

    images: np.ndarray
    audio_clips: np.ndarray | None = None
    texts: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        for name, parts in (("audio_clips", self.audio_clips), ("texts", self.texts)):
            if parts is not None and len(parts) != len(self.images):
                raise InputError(f"{name} has {len(parts)} segments where images has {len(self.images)}")


@dataclass(frozen=True)
class WindowInputs:
    """The four arrays of `embed_video`; sounds are None where no token asks for them."""

    images: np.ndarray
    audio_clips: np.ndarray | None
    tokens: np.ndarray
    subsegments: np.ndarray


@dataclass(frozen=True)
class Answers:
    """Options with their probabilities, best first, and the logits `[windows, options]` they come from.

    The columns of `logits` are in the order the options were given.
    """

    options: tuple[str, ...]
    probabilities: np.ndarray
    logits: np.ndarray


def windows(segments: int, size: int = MAX_SEGMENTS) -> list[range]:
    """Ranges of `size` segments that cover a video; the last one is moved back to be full where the video allows."""
    if segments < 1 or not 1 <= size <= MAX_SEGMENTS:
        raise InputError(
            f"{segments} segments in windows of {size}: both must be at least 1, the size at most {MAX_SEGMENTS}"
        )
    if segments <= size:
        return [range(segments)]
    starts = [*range(0, segments - size, size), segments - size]
    return [range(start, start + size) for start in starts]


def window_inputs(
    model: Pretrained,
    video: VideoInputs,
    window: range,
    prompt: Sequence[int] = (),
    prompt_segment: int = 0,
    use: Literal["audio", "text"] = "audio",
) -> WindowInputs:
    """One window as arrays: the prompt in one segment, sound or text in the others.

    `prompt_segment` counts within the window, negative from its end. What does not fit the model's `text_length`
    is cut from the end, a sound never in parts; a prompt that does not fit raises `InputError`.
    """
    cfg = model.config
    if len(window) > MAX_SEGMENTS:
        raise InputError(f"a window has {len(window)} segments; at most {MAX_SEGMENTS} fit")
    if use == "audio" and video.audio_clips is None:
        raise InputError("the video has no audio_clips; use its text")
    asked = prompt_segment % len(window) if prompt else None
    if len(prompt) > cfg.text_length:
        raise InputError(f"the prompt has {len(prompt)} tokens; at most {cfg.text_length} fit")
    room = cfg.text_length - len(prompt)
    token_ids: list[int] = []
    token_places: list[int] = []
    for place, segment in enumerate(window):
        first = place * cfg.subsegments
        if place == asked:
            token_ids += prompt
            token_places += [first] * len(prompt)
            continue
        if use == "audio":
            ids = [AUDIOSPAN] * (cfg.subsegments * cfg.audio_tokens)
            places = [first + index // cfg.audio_tokens for index in range(len(ids))]
            fits = room // cfg.audio_tokens * cfg.audio_tokens
        else:
            ids = list(video.texts[segment]) if video.texts is not None else []
            places = [first] * len(ids)
            fits = room
        token_ids += ids[:fits]
        token_places += places[:fits]
        room -= len(ids[:fits])
    tokens = np.full(cfg.text_length, PADDING, np.int32)
    subsegments = np.full(cfg.text_length, PADDING_SEGMENT, np.int32)
    tokens[: len(token_ids)] = token_ids
    subsegments[: len(token_places)] = token_places
    chosen = slice(window.start, window.stop)
    clips = None
    if AUDIOSPAN in tokens:
        clips = video.audio_clips[chosen].reshape(-1, *video.audio_clips.shape[2:])
    return WindowInputs(video.images[chosen], clips, tokens, subsegments)


def encode_prompt(model: Pretrained, prompt: str) -> list[int]:
    """Token ids of a prompt with exactly one `<|MASK|>`; spaces before it go, since they would be tokens."""
    if prompt.count(MASK_TEXT) != 1:
        raise InputError(f"prompt {prompt!r} has {prompt.count(MASK_TEXT)} times {MASK_TEXT}; write it exactly once")
    before, after = prompt.split(MASK_TEXT)
    return model.tokenizer.encode(before.rstrip() + MASK_TEXT + after, add_special_tokens=False).ids


def mask_vectors(model: Pretrained, inputs: Sequence[WindowInputs]) -> np.ndarray:
    """The unit vector `[windows, hidden]` at the mask of each window; windows of one size run as one batch."""
    vectors = np.zeros((len(inputs), model.config.hidden_size), np.float32)
    batches: dict[tuple[int, bool], list[int]] = {}
    for index, window in enumerate(inputs):
        batches.setdefault((len(window.images), window.audio_clips is None), []).append(index)
    for (_, silent), members in batches.items():
        group = [inputs[index] for index in members]
        tokens = np.stack([window.tokens for window in group])
        if not ((tokens == MASK).sum(axis=1) == 1).all():
            raise InputError("a window has no or several masks; give each a prompt with one")
        embedded = model.batch_embed_video(
            np.stack([window.images for window in group]),
            None if silent else np.stack([window.audio_clips for window in group]),
            tokens,
            np.stack([window.subsegments for window in group]),
        )
        rows, places = np.nonzero(tokens == MASK)
        vectors[np.asarray(members)[rows]] = np.asarray(embedded, np.float32)[rows, places]
    return vectors


def answer(
    model: Pretrained,
    video: VideoInputs,
    prompt: str,
    options: Sequence[str],
    use: Literal["audio", "text"] = "audio",
    window_size: int = MAX_SEGMENTS,
    prompt_segment: int = 0,
) -> Answers:
    """How well each option fills the mask of a prompt, asked in every window of a video and averaged over them.

    Probabilities are a softmax over the options in each window, then their mean. The segment that carries the prompt is
    seen but not heard. Raises `InputError` for prompts, options or arrays that do not fit.
    """
    ids = encode_prompt(model, prompt)
    inputs = [
        window_inputs(model, video, window, ids, prompt_segment, use)
        for window in windows(len(video.images), window_size)
    ]
    labels = np.asarray(model.get_label_space(options), np.float32)
    return merge(options, LOGIT_SCALE * mask_vectors(model, inputs) @ labels.T)


def merge(options: Sequence[str], logits: np.ndarray) -> Answers:
    """Answers of all windows as one: the mean of their probabilities, best option first."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (shifted / shifted.sum(axis=1, keepdims=True)).mean(axis=0)
    order = np.argsort(-probabilities, kind="stable")
    return Answers(tuple(options[index] for index in order), probabilities[order], logits)
