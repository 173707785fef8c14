"""A small finished data set with sidecars, a vocabulary and a ledger, for the tests of statistics, report and checks."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import simplejpeg

from shards.dataset import manifest
from shards.dataset.ledger import Entry, Ledger
from shards.dataset.manifest import Generation, Manifest, shard_name
from shards.dataset.writer import write_shard
from shards.inspection.scanning import runs_of
from shards.records.pretraining import Example
from shards.tokenizer import SMALLEST_VOCABULARY, train_tokenizer
from tests.reader_data import make_example

SEGMENTS = 4
TITLE = "<script>document.title='x'</script>"
BLACK = simplejpeg.encode_jpeg(np.zeros((40, 64, 3), np.uint8))
SILENT = simplejpeg.encode_jpeg(np.zeros((64, 188, 1), np.uint8), colorspace="GRAY")
TOKENIZER = train_tokenizer(["some words"], SMALLEST_VOCABULARY)


def examples(seed: int, count: int) -> list[Example]:
    """Examples with tokens of the small vocabulary; the first segment of each is black and silent."""
    rng, made = np.random.default_rng(seed), []
    title = TOKENIZER.encode(TITLE, add_special_tokens=False).ids
    for i in range(count):
        example = make_example(rng, f"{seed}x{i}", [SEGMENTS - 1, 1], [3, 0, 4, 2], [1, 1, 2, 3], header=0)
        placed = []
        for j, held in enumerate(example.segments):
            changes = {"tokens": held.segment.tokens % 200 + 20}
            if j == 0:
                changes |= {"image": BLACK, "spectrogram": SILENT}
            first = bool(held.text.meta)
            text = dataclasses.replace(
                held.text,
                title=title if first else [],
                meta='{"categories": ["Music"], "license": "CC-BY"}' if first else "",
            )
            segment = dataclasses.replace(held.segment, **changes)
            placed.append(dataclasses.replace(held, segment=segment, text=text))
        made.append(Example(placed))
    return made


def write_data(folder: Path, shards: list[list[Example]]) -> str:
    """A data folder with these examples in its shards."""
    folder.mkdir(parents=True)
    data = str(folder)
    vocabulary = TOKENIZER.to_str().encode()
    (folder / "tokenizer.json").write_bytes(vocabulary)
    written = [
        write_shard(data, shard_name("train", 0, i, len(shards)), f"plan {i}", map(runs_of, held), held)[0]
        for i, held in enumerate(shards)
    ]
    count = sum(map(len, shards))
    generation = Generation(0, "train", 2 * count, SEGMENTS * count, written)
    manifest.save(data, Manifest(SEGMENTS, "config", hashlib.sha256(vocabulary).hexdigest(), [generation]))
    ledger = Ledger(data)
    for i in range(2 * count):
        ledger.append(Entry(f"v{i}", "extracted", "done", scores={"language": "en"}, at=1.0))
    for outcome, kind in (("too-long", "rejected"), ("no-captions", "rejected"), ("private", "failed-final")):
        ledger.append(Entry(outcome, outcome, kind, at=1.0))
    return data
