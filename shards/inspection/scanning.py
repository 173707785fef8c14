"""The sums of shards read from the shards themselves, several at a time.

For shards whose sidecars are missing, damaged or from an earlier version, and for those of other people.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from shards.dataset.location import DataSet
from shards.dataset.packing import Group, Run
from shards.dataset.sidecar import Collector
from shards.dataset.sums import Sums
from shards.inspection.question_stats import QuestionSums
from shards.records import example as record
from shards.records import tfrecord
from shards.records.pretraining import Example, example_of
from shards.storage import filesystem
from shards.storage.errors import RecordError, StorageError


def scan(data: DataSet, processes: int = 1) -> tuple[Sums, list[str]]:
    """The sums of all shards, and a sentence for each that is damaged or holds other records."""
    found, problems = Sums(), []
    for path, (sums, problem) in zip(data.shards, _scanned(data.shards, processes), strict=True):
        found.add(sums.renamed({path.rpartition("/")[2]: data.names[path]}))
        problems += [problem] if problem else []
    return found, problems


def _scanned(paths: list[str], processes: int) -> Iterator[tuple[Sums, str]]:
    if processes == 1 or len(paths) < 2:
        yield from map(scan_shard, paths)
    else:
        with ProcessPoolExecutor(min(processes, len(paths))) as pool:
            yield from pool.map(scan_shard, paths)


def scan_shard(path: str) -> tuple[Sums, str]:
    """The sums of one shard; if it is damaged or holds other records, none and the sentence that says so."""
    size, content, problem = read_sidecar(path)
    name = path.rpartition("/")[2]
    return (Sums(), problem) if problem else (Sums.of_shard(name, size, content), "")


def read_sidecar(path: str) -> tuple[int, dict[str, Any], str]:
    """A shard's bytes and what its sidecar would say, all JSON-able; if it cannot be read, why (else empty)."""
    name = path.rpartition("/")[2]
    collected: Collector | QuestionSums | None = None
    try:
        with filesystem.open_read(path) as file:
            for number, (_, payload) in enumerate(tfrecord.scan(file, path)):
                features = record.parse(payload)
                if "qa_query" in features:
                    collected = collected or QuestionSums()
                    collected.add(f"{name}#{number}", payload)
                else:
                    collected = collected or Collector()
                    example = example_of(features)
                    collected.add(runs_of(example), example)
        return filesystem.size(path), (collected or Collector()).result(), ""
    except (RecordError, StorageError) as error:
        return 0, {}, str(error)
    except (OSError, SyntaxError) as error:
        return 0, {}, f"{path!r} holds a picture that cannot be decoded: {error}"


def runs_of(example: Example) -> Group:
    """The runs of videos in an example; a record does not say where in the video they were, so they count from 0."""
    runs: list[Run] = []
    held = None
    for placed in example.segments:
        if placed.run == held and runs[-1].video_id == placed.text.video_id:
            runs[-1] = Run(placed.text.video_id, 0, runs[-1].stop + 1)
        else:
            runs.append(Run(placed.text.video_id, 0, 1))
        held = placed.run
    return runs
