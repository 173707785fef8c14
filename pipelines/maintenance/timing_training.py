"""Train a model of the errors in a recogniser's word times, from recordings with recognised and true times."""

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

_VALIDATION_EVERY = 8
"""One in this many recordings is used for validation, which selects the best weights."""

_LEAST_STD = 1e-3
_REACH = 0.2
"""The maximum distance of an offset from the median, in seconds, with the initial weights."""


@dataclass(frozen=True)
class Recording:
    """The same words with recognised and with true times, and the number of tokens of each."""

    recognised: list[Word]
    aligned: list[Word]
    pieces: list[int]


class PairsError(UserError):
    """A file of recordings is invalid; the message names the line."""


def run(options: TimingOptions) -> int:
    """Train a model, write it, print its improvement, and return the exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    recordings = read_pairs(options.pairs, options.tokenizer)
    model = learn(recordings, options.steps, options.seed)
    filesystem.write_bytes(options.out, to_json(model).encode())
    words = sum(len(recording.pieces) for recording in recordings)
    before, after = error(recordings, None), error(recordings, model)
    console.print(
        f"{options.out}: trained on {words} words of {len(recordings)} recordings; the median error of their starts is"
        f" {1000 * after:.0f} ms instead of {1000 * before:.0f} ms"
    )
    return 0


def read_pairs(path: str, tokenizer: str) -> list[Recording]:
    """Return the recordings in a file. Raises `PairsError` naming the first invalid line."""
    vocabulary = load_tokenizer(tokenizer)
    recordings = []
    for number, line in enumerate(filesystem.read_bytes(path).splitlines(), start=1):
        try:
            values = json.loads(line)
            recognised, aligned = ([Word(str(t), float(a), float(b)) for t, a, b in values[name]] for name in NAMES)
        except (ValueError, LookupError, TypeError) as error:
            raise PairsError(f"line {number} of {path!r} is not a recording: {type(error).__name__}: {error}") from None
        if len(recognised) != len(aligned):
            raise PairsError(
                f"line {number} of {path!r} has {len(recognised)} recognised and {len(aligned)} aligned words;"
                " they must be the same words"
            )
        pieces = [len(ids) for ids in encode_words(vocabulary, [word.text for word in recognised])]
        recordings.append(Recording(recognised, aligned, pieces))
    if sum(len(recording.pieces) for recording in recordings) < 100:
        raise PairsError(f"{path!r} has fewer than 100 words, too few to train a useful model; add recordings")
    return recordings


NAMES = ("recognised", "aligned")


def learn(recordings: Sequence[Recording], steps: int, seed: int) -> TimingModel:
    """Train the published network architecture; returns the weights with the least absolute error in validation."""
    rng = generator(seed, "timing")
    inputs = [features(recording.recognised, recording.pieces) for recording in recordings]
    targets = [_offsets(recording) for recording in recordings]
    every = _VALIDATION_EVERY
    validation = set(range(0, len(recordings), every)) if len(recordings) >= every else set()
    train = [i for i in range(len(recordings)) if i not in validation]
    x, y = (np.concatenate([values[i] for i in train]) for values in (inputs, targets))
    mean, std = x.mean(axis=0), np.maximum(x.std(axis=0), _LEAST_STD)
    chosen_for_validation = sorted(validation) or train
    x_validation, y_validation = (
        np.concatenate([values[i] for i in chosen_for_validation]) for values in (inputs, targets)
    )
    weights = _first_weights(rng, y)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    state = optimizer.init(weights)

    @jax.jit
    def step(weights, state, x, y):
        gradient = jax.grad(lambda w: jnp.abs(_predict(w, x) - y).mean())(weights)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    x, x_validation = (x - mean) / std, (x_validation - mean) / std
    best, least = weights, float("inf")
    for number in range(steps):
        chosen = rng.integers(0, len(x), min(512, len(x)))
        weights, state = step(weights, state, x[chosen], y[chosen])
        if number % 50 == 49 or number + 1 == steps:
            validation_error = float(jnp.abs(_predict(weights, x_validation) - y_validation).mean())
            if validation_error < least:
                best, least = weights, validation_error
    arrays = {name: np.asarray(value, np.float32) for name, value in best.items()}
    return TimingModel(arrays | {"mean": mean.astype(np.float32), "std": std.astype(np.float32)})


def error(recordings: Iterable[Recording], model: TimingModel | None) -> float:
    """Return the median error of the words' starts in seconds, as recognised or as corrected by a model."""
    distances = []
    for recording in recordings:
        words = model.correct(recording.recognised, recording.pieces) if model else recording.recognised
        distances += [abs(w.start - true.start) for w, true in zip(words, recording.aligned, strict=True)]
    return float(np.median(distances))


def to_json(model: TimingModel) -> str:
    """Return the model in the published format: flat lists by name."""
    return json.dumps({name: model.weights[name].ravel().tolist() for name in SHAPES}) + "\n"


def _offsets(recording: Recording) -> np.ndarray:
    """Return the corrections of each word's start and end, `float32 [n, 2]`."""
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
    """Return the offsets for normalised features (docs/spec/ingest.md 10)."""
    for layer in (0, 2):
        x = jax.nn.relu(x @ weights[f"mapping.{layer}.weight"].T + weights[f"mapping.{layer}.bias"])
    x = x @ weights["mapping.4.weight"].T + weights["mapping.4.bias"]
    return jnp.tanh(x) * jnp.exp(weights["temp"]) + weights["bias"]
