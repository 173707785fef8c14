"""Learn by how much a recogniser's words are early or late, from recordings with true times beside its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from ingest.captions import Word
from ingest.timing import SHAPES, TimingModel, features
from pipelines.maintenance.options import TimingOptions
from shards.storage import filesystem
from shards.storage.errors import UserError
from shards.storage.randomness import generator
from shards.tokenizer import encode_words, load_tokenizer

_HELD_OUT = 8
"""One recording of so many is held out, to know when to stop."""

_LEAST_STD = 1e-3
_REACH = 0.2
"""Seconds that an offset may be from its mean, at the start of learning."""


@dataclass(frozen=True)
class Recording:
    """The same words as recognised and as spoken, and the number of vocabulary pieces of each."""

    recognised: list[Word]
    aligned: list[Word]
    pieces: list[int]


class PairsError(UserError):
    """A file of recordings cannot be learned from; the message names the line."""


def run(options: TimingOptions) -> int:
    """Learn a model, write it, and print how much it corrects; returns the exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    recordings = read_pairs(options.pairs, options.tokenizer)
    model = learn(recordings, options.steps, options.seed)
    filesystem.write_bytes(options.out, to_json(model).encode())
    words = sum(len(recording.pieces) for recording in recordings)
    before, after = error(recordings, None), error(recordings, model)
    console.print(
        f"{options.out}: learned from {words} words of {len(recordings)} recordings; their starts are"
        f" {1000 * after:.0f} ms off instead of {1000 * before:.0f} (medians)"
    )
    return 0


def read_pairs(path: str, tokenizer: str) -> list[Recording]:
    """The recordings in a file. Raises `PairsError` naming the first bad line."""
    vocabulary = load_tokenizer(tokenizer)
    recordings = []
    for number, line in enumerate(filesystem.read_bytes(path).splitlines(), start=1):
        try:
            held = json.loads(line)
            recognised, aligned = ([Word(str(t), float(a), float(b)) for t, a, b in held[name]] for name in NAMES)
        except (ValueError, LookupError, TypeError) as error:
            raise PairsError(f"line {number} of {path!r} is no recording: {type(error).__name__}: {error}") from None
        if len(recognised) != len(aligned):
            raise PairsError(
                f"line {number} of {path!r} has {len(recognised)} words recognised, {len(aligned)} aligned"
            )
        pieces = [len(ids) for ids in encode_words(vocabulary, [word.text for word in recognised])]
        recordings.append(Recording(recognised, aligned, pieces))
    if sum(len(recording.pieces) for recording in recordings) < 100:
        raise PairsError(f"{path!r} holds fewer than 100 words; a model learned from so few would be worse than none")
    return recordings


NAMES = ("recognised", "aligned")


def learn(recordings: Sequence[Recording], steps: int, seed: int) -> TimingModel:
    """The network of the published form with the least absolute error on recordings held out while it learned."""
    rng = generator(seed, "timing")
    inputs = [features(recording.recognised, recording.pieces) for recording in recordings]
    targets = [_offsets(recording) for recording in recordings]
    held_out = set(range(0, len(recordings), _HELD_OUT)) if len(recordings) >= _HELD_OUT else set()
    train = [i for i in range(len(recordings)) if i not in held_out]
    x, y = (np.concatenate([values[i] for i in train]) for values in (inputs, targets))
    mean, std = x.mean(axis=0), np.maximum(x.std(axis=0), _LEAST_STD)
    judge = sorted(held_out) or train
    seen, true = (np.concatenate([values[i] for i in judge]) for values in (inputs, targets))
    weights = _first_weights(rng, y)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    state = optimizer.init(weights)

    @jax.jit
    def step(weights, state, x, y):
        gradient = jax.grad(lambda w: jnp.abs(_predict(w, x) - y).mean())(weights)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    x, seen = (x - mean) / std, (seen - mean) / std
    best, least = weights, float("inf")
    for number in range(steps):
        chosen = rng.integers(0, len(x), min(512, len(x)))
        weights, state = step(weights, state, x[chosen], y[chosen])
        if number % 50 == 49 or number + 1 == steps:
            off = float(jnp.abs(_predict(weights, seen) - true).mean())
            if off < least:
                best, least = weights, off
    arrays = {name: np.asarray(value, np.float32) for name, value in best.items()}
    return TimingModel(arrays | {"mean": mean.astype(np.float32), "std": std.astype(np.float32)})


def error(recordings: Iterable[Recording], model: TimingModel | None) -> float:
    """The median distance of the words' starts from the true ones, seconds, as recognised or after correction."""
    distances = []
    for recording in recordings:
        words = model.correct(recording.recognised, recording.pieces) if model else recording.recognised
        distances += [abs(w.start - true.start) for w, true in zip(words, recording.aligned, strict=True)]
    return float(np.median(distances))


def to_json(model: TimingModel) -> str:
    """The model in the published form: flat lists by name."""
    return json.dumps({name: model.weights[name].ravel().tolist() for name in SHAPES}) + "\n"


def _offsets(recording: Recording) -> np.ndarray:
    """`float32 [n, 2]`: what must be added to each word's start and end."""
    pairs = zip(recording.recognised, recording.aligned, strict=True)
    return np.array([(b.start - a.start, b.end - a.end) for a, b in pairs], np.float32).reshape(-1, 2)


def _first_weights(rng: np.random.Generator, offsets: np.ndarray) -> dict[str, jax.Array]:
    weights = {}
    for name in SHAPES:
        if name.startswith("mapping"):
            shape = SHAPES[name]
            scale = np.sqrt(2 / shape[-1]) if len(shape) == 2 else 0.0
            weights[name] = jnp.asarray(rng.normal(0, 1, shape) * scale, jnp.float32)
    middle = np.median(offsets, axis=0)
    return weights | {"temp": jnp.full(2, np.log(_REACH), jnp.float32), "bias": jnp.asarray(middle, jnp.float32)}


def _predict(weights: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """The offsets of normalised features (docs/spec/ingest.md 10)."""
    for layer in (0, 2):
        x = jax.nn.relu(x @ weights[f"mapping.{layer}.weight"].T + weights[f"mapping.{layer}.bias"])
    x = x @ weights["mapping.4.weight"].T + weights["mapping.4.bias"]
    return jnp.tanh(x) * jnp.exp(weights["temp"]) + weights["bias"]
