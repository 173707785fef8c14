"""Examples of the report: frames, spectrograms, words by audio span, and masks.

The masks come from the reader with its default configuration and a fixed seed, so the page shows one sample of the
training data.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np

from shards import tokenizer
from shards.inspection import drawing
from shards.inspection.show import Decode
from shards.reading.config import ReaderConfig
from shards.reading.pretraining import PretrainingParser
from shards.reading.vocabulary import Vocabulary
from shards.records.pretraining import Example, parse_example
from shards.storage import fetch, filesystem
from shards.storage.errors import RecordError, UserError
from shards.storage.randomness import generator
from shards.tokenizer_file import TOKENIZER_NAME
from shards.tokens import AUDIOSPAN, MASK, MASKAUDIO, PADDING

TEXT, MASKED, SOUND = "text", "mask", "sound"
"""Kinds of pieces of a sequence: words, a mask (with the masked words), or audio tokens."""


def decoder(folder: str, path: str | None = None) -> Decode:
    """Return a decoder for the vocabulary at `path`, of the data folder, or the published one.

    If the published one cannot be downloaded, ids are shown as numbers.
    """
    own = filesystem.join(folder, TOKENIZER_NAME)
    try:
        vocabulary = tokenizer.load_tokenizer(path or (own if filesystem.exists(own) else None))
    except fetch.FetchError:
        return lambda ids: " ".join(f"#{token}" for token in ids)
    return lambda ids: vocabulary.decode(list(map(int, ids))).strip()


def entry(
    payload: bytes, where: tuple[str, int], tags: list[str], vocabulary: Vocabulary, decode: Decode, most_bytes: int
) -> dict[str, Any]:
    """Return one example of the gallery as JSON-able values. Raises `RecordError` if it is damaged."""
    example = parse_example(payload)
    frames, sounds = drawing.strips([placed.segment for placed in example.segments], most_bytes)
    masks = masked(payload, example, vocabulary, decode, where)
    return {
        "shard": where[0],
        "record": where[1],
        "tags": tags,
        "frames": drawing.data_uri(frames),
        "sounds": drawing.data_uri(sounds),
        "segments": [
            {
                "video": placed.text.video_id,
                "title": decode(placed.text.title) if placed.text.title else "",
                "about": _about(placed.text.meta),
                "times": [round(placed.segment.start, 2), round(placed.segment.end, 2)],
                "speed": placed.segment.speed,
                "run": placed.run,
                "words": decode(placed.segment.tokens),
                **{name: pieces[i] for name, pieces in masks.items()},
            }
            for i, placed in enumerate(example.segments)
        ],
    }


def masked(
    payload: bytes, example: Example, vocabulary: Vocabulary, decode: Decode, where: tuple[str, int]
) -> dict[str, list[list[list[Any]]]]:
    """Return pieces [audio span, kind, text] of each segment for both kinds of sequences; empty if it is not valid."""
    config = _config_for(len(example.segments))
    parser = PretrainingParser(config, vocabulary)
    arrays = {key: np.empty(shape, dtype) for key, (shape, dtype) in parser.spec().items()}
    try:
        parser(payload, lambda purpose: generator(0, "report", purpose, *where), arrays)
    except (RecordError, UserError):
        return {"text2audio": [[]] * config.segments, "audio2text": [[]] * config.segments}
    return {name: _pieces(name, arrays, config, decode) for name in ("text2audio", "audio2text")}


def _config_for(segments: int) -> ReaderConfig:
    """Return the default configuration for this number of segments, without images and audio."""
    return ReaderConfig(
        segments=segments,
        groups=2 if segments % 2 == 0 else 1,
        random_text_sequences=0,
        sequence_length=max(640, 20 * segments),
        blank_images=True,
        blank_audio=True,
        grid=(1, 1),
    )


def _pieces(name: str, arrays: dict[str, np.ndarray], config: ReaderConfig, decode: Decode) -> list[list[list[Any]]]:
    ids, rows, texts = (arrays[name + suffix].reshape(-1) for suffix in ("", "/audio_ptr", "/text_ptr"))
    segments: list[list[list[Any]]] = [[] for _ in range(config.segments)]
    kept = (ids != PADDING) & (ids != MASKAUDIO)
    ids, rows, texts = ids[kept], rows[kept], texts[kept]
    borders = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    for first, stop in itertools.pairwise(borders):
        row, part = int(rows[first]), ids[first:stop]
        if part[0] == MASK:
            words = arrays["text_spans"][texts[first]]
            piece = [row % config.subsegments, MASKED, decode(words[words != PADDING])]
        elif part[0] == AUDIOSPAN:
            piece = [row % config.subsegments, SOUND, ""]
        else:
            piece = [row % config.subsegments, TEXT, decode(part)]
        segments[row // config.subsegments].append(piece)
    return segments


def _about(meta: str) -> str:
    """Return categories, upload date and licence from a video's metadata, as far as they are stated."""
    try:
        metadata = json.loads(meta) if meta else {}
    except (ValueError, RecursionError):
        return ""
    if not isinstance(metadata, dict):
        return ""
    categories = metadata.get("categories")
    shown = [c for c in categories if isinstance(c, str)] if isinstance(categories, list) else []
    return ", ".join([*shown, *(str(metadata[key]) for key in ("upload_date", "license") if metadata.get(key))])
