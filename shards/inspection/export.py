"""Export shards to WebDataset tar files, or to Parquet tables with a row per segment.

The bytes of frames and spectrograms are copied without decoding.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

from shards.dataset.location import SUFFIX, DataSet
from shards.records import tfrecord
from shards.records.pretraining import Example, ExampleSegment, parse_example
from shards.storage import filesystem
from shards.storage.errors import RecordError, UserError

Form = Literal["webdataset", "parquet"]
ENDINGS: dict[Form, str] = {"webdataset": ".tar", "parquet": ".parquet"}


class ExportError(UserError):
    """A shard cannot be exported because it is damaged; the message names the place."""


def export(data: DataSet, out: str, form: Form) -> Iterator[str]:
    """Write every shard as one file into the folder `out` and yield the path of each when it is complete.

    Raises `ExportError` at the first damaged record; the files yielded before it are complete.
    """
    write = {"webdataset": _write_tar, "parquet": _write_parquet}[form]
    for shard in data.shards:
        name = data.names[shard].removesuffix(SUFFIX).replace("/", "-")
        path = filesystem.join(out, name + ENDINGS[form])
        try:
            with filesystem.create(path) as file:
                write(file, name, shard)
        except RecordError as error:
            raise ExportError(f"{error}; run `python -m shards verify` for details") from None
        yield path


def _examples(shard: str) -> Iterator[Example]:
    with filesystem.open_read(shard) as file:
        for _, payload in tfrecord.scan(file, shard):
            yield parse_example(payload)


def _values(placed: ExampleSegment) -> dict[str, Any]:
    """Return everything of a segment except its images, as JSON-able values."""
    segment, text = placed.segment, placed.text
    return {
        "video_id": text.video_id,
        "run": placed.run,
        "start": segment.start,
        "end": segment.end,
        "speed": segment.speed,
        "width": segment.width,
        "height": segment.height,
        "magic": segment.magic,
        "tokens": segment.tokens.tolist(),
        "token_starts": segment.token_starts.tolist(),
        "token_ends": segment.token_ends.tolist(),
        "title": text.title,
        "tags": text.tags,
        "description": text.description,
        "meta": text.meta,
    }


def _write_tar(file: BinaryIO, name: str, shard: str) -> None:
    """Write each example as the files of one key: `KEY.NN.jpg`, `KEY.NN.spectrogram.jpg` and `KEY.json`."""
    with tarfile.open(fileobj=file, mode="w|") as tar:
        for number, example in enumerate(_examples(shard)):
            key = f"{name}-{number:06d}"
            for i, placed in enumerate(example.segments):
                _add(tar, f"{key}.{i:02d}.jpg", placed.segment.image)
                _add(tar, f"{key}.{i:02d}.spectrogram.jpg", placed.segment.spectrogram)
            description = {
                "segments": [_values(placed) for placed in example.segments],
                "random_text": [text.tolist() for text in example.random_text],
            }
            _add(tar, f"{key}.json", json.dumps(description, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # A new TarInfo has no time and no owner, so equal shards result in equal files.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _write_parquet(file: BinaryIO, name: str, shard: str) -> None:
    """Write a row per segment and a row group per example; web texts are in the rows of the first segments."""
    # Arrow is slow to import, and only this format needs it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = pa.list_(pa.int32())
    integers = ("example", "segment", "run", "speed", "width", "height")
    columns = {
        **dict.fromkeys(integers, pa.int32()),
        **{"shard": pa.string(), "video_id": pa.string(), "meta": pa.string()},
        **dict.fromkeys(("start", "end", "magic"), pa.float32()),
        **dict.fromkeys(("token_starts", "token_ends"), pa.list_(pa.float32())),
        **dict.fromkeys(("tokens", "title", "tags", "description", "random_text"), words),
        **{"image": pa.binary(), "spectrogram": pa.binary()},
    }
    schema = pa.schema(sorted(columns.items()))
    with pq.ParquetWriter(file, schema) as writer:
        for number, example in enumerate(_examples(shard)):
            rows = []
            for i, placed in enumerate(example.segments):
                text = example.random_text[i].tolist() if i < len(example.random_text) else []
                pictures = {"image": placed.segment.image, "spectrogram": placed.segment.spectrogram}
                place = {"shard": name, "example": number, "segment": i, "random_text": text}
                rows.append(_values(placed) | pictures | place)
            writer.write_table(pa.Table.from_pylist(rows, schema))
