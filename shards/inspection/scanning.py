"""Statistics computed from the shards themselves, several in parallel.

For shards whose sidecars are missing, damaged or of an earlier version, and for shards of other toolkits.
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
    """Return the sums of all shards, and an error for each shard that is damaged or has unknown records."""
    totals, problems = Sums(), []
    for path, (sums, problem) in zip(data.shards, _scanned(data.shards, processes), strict=True):
        totals.add(sums.renamed({path.rpartition("/")[2]: data.names[path]}))
        problems += [problem] if problem else []
    return totals, problems


def _scanned(paths: list[str], processes: int) -> Iterator[tuple[Sums, str]]:
    if processes == 1 or len(paths) < 2:
        yield from map(scan_shard, paths)
    else:
        with ProcessPoolExecutor(min(processes, len(paths))) as pool:
            yield from pool.map(scan_shard, paths)


def scan_shard(path: str) -> tuple[Sums, str]:
    """Return the sums of one shard and an error, which is empty if the shard is valid."""
    size, content, problem = read_sidecar(path)
    name = path.rpartition("/")[2]
    return (Sums(), problem) if problem else (Sums.of_shard(name, size, content), "")


def read_sidecar(path: str) -> tuple[int, dict[str, Any], str]:
    """Return a shard's size, the content of its sidecar, JSON-able, and an error, which is empty if it is valid."""
    name = path.rpartition("/")[2]
    examples, questions = Collector(), QuestionSums()
    try:
        with filesystem.open_read(path) as file:
            for number, (_, payload) in enumerate(tfrecord.scan(file, path)):
                features = record.parse(payload)
                if "qa_query" in features:
                    questions.add(f"{name}#{number}", payload)
                else:
                    example = example_of(features)
                    examples.add(runs_of(example), example)
        if questions.ids and examples.runs:
            return 0, {}, f"{path!r} mixes questions with pretraining records"
        return filesystem.size(path), questions.result() if questions.ids else examples.result(), ""
    except (RecordError, StorageError) as error:
        return 0, {}, str(error)
    except (OSError, SyntaxError) as error:
        return 0, {}, f"{path!r} contains an image that cannot be decoded: {error}"


def runs_of(example: Example) -> Group:
    """Return the runs of videos in an example; records do not have positions in the video, so runs start at 0."""
    runs: list[Run] = []
    previous = None
    for placed in example.segments:
        if placed.run == previous and runs[-1].video_id == placed.text.video_id:
            runs[-1] = Run(placed.text.video_id, 0, runs[-1].stop + 1)
        else:
            runs.append(Run(placed.text.video_id, 0, 1))
        previous = placed.run
    return runs
