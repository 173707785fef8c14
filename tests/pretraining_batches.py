"""Pretraining batches made without data, for tests of what computes with them."""

import jax.numpy as jnp
import numpy as np

from model.objectives import batch_shapes
from shards.tokens import LTOVPOOL, MASK, MASKAUDIO


def make_batch(model, examples, seed=0):
    """A batch with the structure the objectives need: asking tokens with pointers, audible sounds, readable spans."""
    rng = np.random.default_rng(seed)
    batch = {}
    for name, shape in batch_shapes(model, examples).items():
        if shape.dtype == jnp.int32:
            batch[name] = np.full(shape.shape, -1 if name.endswith("_ptr") else 0, np.int32)
        else:
            batch[name] = rng.standard_normal(shape.shape).astype(np.float32)
    batch["text_spans"][:] = rng.integers(20, model.vocabulary_size, batch["text_spans"].shape)
    batch["record_digest"] = rng.integers(0, 2**31, (examples, 2), np.int32)
    batch["video_src_index"][:, model.segments // 2 :] = 1
    targets = model.targets
    for example in range(examples):
        for first, kind in ((0, "text2audio"), (targets, "audio2text")):
            sounds = np.sort(rng.choice(model.audio_spans, targets, replace=False))
            for i, sound in enumerate(sounds):
                places = slice(4 * i, 4 * i + 2)
                batch[kind][example, 0, 4 * i : 4 * i + 4] = [MASK, MASKAUDIO, 30, 31]
                batch[f"{kind}/audio_ptr"][example, 0, 4 * i : 4 * i + 4] = sound
                batch[f"{kind}/text_ptr"][example, 0, places] = first + i
                if kind == "audio2text":
                    batch[kind][example, 0, 4 * i + 1] = 32
        for segment in range(model.segments):
            batch["audio_text_matching"][example, 0, 3 * segment : 3 * segment + 3] = [LTOVPOOL, 40 + segment, 41]
    return batch
