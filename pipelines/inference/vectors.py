"""Embed the segments of videos and data sets, and write the vectors as a table."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console

from ingest.clip import Clip, ClipError
from ingest.raw import RawError, list_folder
from model import inference
from model.inference import SegmentVectors, Use
from model.pretrained import Pretrained
from pipelines.inference.clips import inputs, read_clip
from pipelines.inference.options import Embed, Part
from pipelines.inference.weights import input_errors, load_weights
from shards.dataset import location as dataset
from shards.reader import examples
from shards.reading.pretraining import DecodedSegment
from shards.storage import filesystem
from shards.storage.errors import UsageError


def run(options: Embed) -> int:
    """Write the vectors of a source and return the exit status."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    model = load_weights(options.checkpoint, options.grid)
    embedded: list[Embedded] = []
    with input_errors():
        for name, clip in clips(options.source, options.split, console):
            if options.limit is not None and len(embedded) >= options.limit:
                break
            embedded.append(embed(model, name, clip, options.use))
    if not embedded:
        raise UsageError(f"{options.source!r} contains nothing to embed")
    write(options.out, columns(embedded))
    console.print(f"{sum(len(e.times) for e in embedded)} segments in {options.out}")
    return 0


@dataclass(frozen=True)
class Embedded:
    """The vectors of some segments of one video."""

    video: str
    times: np.ndarray
    vectors: SegmentVectors


def clips(source: str, split: str | None, console: Console) -> Iterator[tuple[str, Clip]]:
    """Yield the name and the segments of each video of a source; unreadable videos are reported and skipped."""
    place = Path(source)
    if place.is_dir() and not _is_data(source):
        try:
            videos = list_folder(source)
        except RawError as error:
            raise UsageError(f"{error}, and no shards") from None
    elif place.is_dir() or source.endswith((dataset.SUFFIX, ".json")) or any(mark in source for mark in "*{"):
        yield from _of_data(source, split)
        return
    else:
        videos = [source]
    for video in videos:
        try:
            yield Path(video).stem, read_clip(video, Part())
        except ClipError as error:
            if len(videos) == 1:
                raise
            console.print(f"note: skipped: {error}")


def _is_data(folder: str) -> bool:
    return any(name.endswith(dataset.SUFFIX) for name in filesystem.list_files(folder))


def _of_data(data: str, split: str | None) -> Iterator[tuple[str, Clip]]:
    """Yield the runs of consecutive segments of one video in each example."""
    for segments, _ in examples(data, split):
        for video, run in groupby(segments, key=lambda segment: segment.video_id):
            yield video, _clip(list(run))


def _clip(run: list[DecodedSegment]) -> Clip:
    return Clip(
        np.array([(s.start, s.end) for s in run], np.float64),
        [s.image for s in run],
        np.stack([s.log_mel.T for s in run]).astype(np.float32),
        [s.tokens.tolist() for s in run],
        speeds=[s.speed for s in run],
    )


def embed(model: Pretrained, name: str, clip: Clip, use: Use) -> Embedded:
    """Return the vectors of a clip."""
    video = inputs(clip, model.config.grid)
    return Embedded(name, clip.times, inference.embed_segments(model, video, use))


def columns(embedded: list[Embedded]) -> dict[str, np.ndarray]:
    """Return the columns of all n segments: `video`, `start`, `end` and the vectors; NaN without sound or words."""
    counts = [len(e.times) for e in embedded]
    hidden = embedded[0].vectors.frame.shape[1]
    sounds = next((e.vectors.audio.shape[1] for e in embedded if e.vectors.audio is not None), 0)

    def joined(name: str, *shape: int) -> np.ndarray:
        parts = [getattr(e.vectors, name) for e in embedded]
        return np.concatenate(
            [
                np.full((n, *shape), np.nan, np.float32) if part is None else part
                for n, part in zip(counts, parts, strict=True)
            ]
        )

    times = np.concatenate([e.times for e in embedded])
    return {
        "video": np.repeat(np.array([e.video for e in embedded]), counts),
        "start": times[:, 0],
        "end": times[:, 1],
        "frame": joined("frame", hidden),
        "audio": joined("audio", sounds, hidden),
        "text": joined("text", hidden),
        "joint": joined("joint", hidden),
    }


def write(path: str, table: dict[str, np.ndarray]) -> None:
    """Write the columns atomically, in the format of the path's suffix."""
    buffer = io.BytesIO()
    if path.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = {
            name: pa.array(values) if values.ndim == 1 else pa.array(values.tolist()) for name, values in table.items()
        }
        pq.write_table(pa.table(arrays), buffer)
    else:
        np.savez(buffer, allow_pickle=False, **table)
    filesystem.write_bytes(path, buffer.getvalue())
