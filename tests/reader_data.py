"""Small data sets on disk and examples of every kind, for the tests of the reader."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import simplejpeg

from shards.dataset import manifest
from shards.dataset.manifest import Generation, Manifest, Shard, index_path, shard_name
from shards.records import tfrecord
from shards.records.pretraining import Example, ExampleSegment
from shards.records.segments import Segment, VideoText
from shards.storage.fetch import TOKENIZER


def jpeg(rng: np.random.Generator, height: int, width: int, grey: bool = False) -> bytes:
    pixels = rng.integers(0, 256, (height, width, 1 if grey else 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90, colorspace="GRAY" if grey else "RGB")


def make_example(
    rng: np.random.Generator,
    name: str,
    runs: list[int],
    tokens: list[int],
    speeds: list[int],
    size: tuple[int, int] = (40, 64),
    texts: int = 0,
    header: int = 5,
) -> Example:
    """An example whose videos have `runs` segments, with `tokens` words and a playback speed in each segment."""
    placed, start = [], 0.0
    for i, (count, speed) in enumerate(zip(tokens, speeds, strict=True)):
        run = int(np.searchsorted(np.cumsum(runs), i, side="right"))
        first = i == 0 or run != placed[-1].run
        times = np.sort(rng.random(count) * 5).astype(np.float32)
        segment = Segment(
            start=start,
            end=start + 5 * speed,
            speed=speed,
            image=jpeg(rng, *size),
            width=size[1],
            height=size[0],
            spectrogram=jpeg(rng, 64, 188, grey=True),
            magic=float(rng.uniform(20, 255)),
            tokens=rng.integers(100, 30_000, count),
            token_starts=times,
            token_ends=times + np.float32(0.1),
        )
        start = segment.end
        words = [list(map(int, rng.integers(100, 30_000, header))) for _ in range(3)] if first else [[], [], []]
        text = VideoText(f"{name[:9]:_<9}{run:02d}", *words, meta="{}" if first else "")
        placed.append(ExampleSegment(segment, text, run))
    return Example(placed, [rng.integers(100, 30_000, 1536) for _ in range(texts)])


def write_data(folder: Path, counts: list[int], segments: int = 4, texts: int = 0, seed: int = 0) -> str:
    """A data folder with `counts` examples in its shards; each example's first video id is unique."""
    folder.mkdir(parents=True)
    rng, shards = np.random.default_rng(seed), []
    for i, count in enumerate(counts):
        name = shard_name("train", 0, i, len(counts))
        framed = []
        for j in range(count):
            example = make_example(
                rng, f"{seed}s{i}e{j}", [segments - 1, 1], [3] * segments, [1] * segments, texts=texts
            )
            framed.append(tfrecord.frame(example.serialize()))
        offsets = np.cumsum([0, *map(len, framed)]).astype("<u8")
        content = b"".join(framed)
        (folder / name).write_bytes(content)
        (folder / index_path(name)).write_bytes(offsets.tobytes())
        shards.append(Shard(name, count, len(content), hashlib.sha256(content).hexdigest()))
    generation = Generation(0, "train", sum(counts), sum(counts) * segments, shards)
    manifest.save(str(folder), Manifest(segments, "", TOKENIZER.sha256, [generation]))
    return str(folder)
