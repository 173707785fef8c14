"""How well a classifier answers a split, and what it answers: accuracies with counts, predictions, leaderboard files.

Every question counts once, also those of a last batch that is not full, and all hosts take part.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from model.config import ReserveConfig
from shards.reading.cache import CacheOptions
from shards.reading.evaluation import IS_RECORD, Pass
from shards.records.question_config import QuestionConfig
from shards.records.question_rows import read_ids
from shards.storage import filesystem
from shards.storage.errors import UsageError
from train.compilation.compiling import announce
from train.config import MeshConfig
from train.mesh import batch_shards, check_batch, make_mesh, to_devices
from train.metrics.figures import Accuracy, NotFiniteError, accuracy_table, majority_share
from train.metrics.intervals import wilson
from train.options import QuestionEvaluation
from train.tasks import Logits, Predictions, Task
from train.tasks.setup import Classifier, load_classifier
from train.tasks.step import make_evaluation
from train.tasks.table import TASKS

UNLABELLED = "test"
"""The split whose questions have no labels."""


class Evaluator:
    """Asks a classifier the questions of a split, as often as wanted; the program is compiled once."""

    def __init__(
        self,
        task: Task,
        model: ReserveConfig,
        reader: QuestionConfig,
        mesh: Mesh,
        batch_size: int,
        console: Console,
        cache: CacheOptions | None = None,
        workers: int | None = None,
    ):
        """`batch_size` is that of all hosts together, raised to a multiple of the devices; compiling is announced."""
        unit = math.lcm(batch_shards(mesh), jax.process_count())
        batch_size = -(-batch_size // unit) * unit
        check_batch(mesh, batch_size)
        self.model, self._parser, self._mesh, self._cache = model, task.parser(reader), mesh, cache
        self._workers = workers
        self._size = batch_size // jax.process_count()
        self._evaluate = make_evaluation(task, model, mesh)
        self._console, self._compiled = console, False

    def __call__(self, params: dict, data: str, split: str | None) -> Predictions:
        """Ask every question once.

        Raises `UsageError` if there is no such split, `NotFiniteError` for scores that are not finite.
        """
        if not self._compiled:
            announce(self._console, "the evaluation")
            self._compiled = True
        hosts = jax.process_count()
        batches = Pass(data, split, self._parser, self._size, jax.process_index(), hosts, self._cache, self._workers)
        ids: list[str] = []
        parts = []
        for batch in batches:
            marks, *arrays = jax.device_get(self._evaluate(params, to_devices(self._mesh, batch)))
            real = marks[IS_RECORD]
            ids += read_ids(marks["id"][real])
            parts.append(jax.tree.map(lambda array, real=real: np.asarray(array)[real], arrays))
        logits, right, labels = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        check_finite(ids, logits)
        return Predictions(ids, logits, right, labels)


def check_finite(ids: Sequence[str], logits: Logits) -> None:
    """Raise `NotFiniteError` naming the first question with a score that is NaN or infinite."""
    finite = np.ones(len(ids), bool)
    for array in jax.tree.leaves(logits):
        finite &= np.isfinite(array).reshape(len(ids), -1).all(axis=1)
    if not finite.all():
        raise NotFiniteError(
            f"the scores of {np.count_nonzero(~finite)} of {len(ids)} questions are not finite, first of"
            f" {ids[int(finite.argmin())]!r}: the weights are damaged or their training diverged; evaluate others"
        )


def accuracies(predictions: Predictions) -> dict[str, Accuracy]:
    """Compute the accuracy of each metric from predictions whose questions have labels."""
    options = jax.tree.leaves(predictions.logits)[0].shape[-1]
    results = {}
    for name, right in predictions.right.items():
        labels = predictions.labels[name]
        chance = options ** -labels.shape[1]
        total, count = float(right.sum(dtype=np.float64)), len(right)
        interval = wilson(total / count, count)
        results[name] = Accuracy(total, count, chance, *interval, majority_share(labels))
    return results


def evaluate(options: QuestionEvaluation) -> int:
    """Evaluate on the task of the options, or write its leaderboard file, and print; returns the exit status."""
    task, mesh = TASKS[options.task], make_mesh(MeshConfig())
    if options.split == UNLABELLED and options.submit is None:
        raise UsageError(f"--split {options.split}: its questions have no labels; evaluate val, or use --submit")
    classifier = load_classifier(task, options.checkpoint, options.data)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    evaluator = Evaluator(
        task,
        classifier.model,
        classifier.reader,
        mesh,
        options.batch_size,
        console,
        options.cache,
        options.reader_workers,
    )
    if options.submit is not None:
        paths = submit(task, evaluator, classifier, options.data, options.submit)
        sys.stdout.write("".join(f"{path}\n" for path in paths))
        return 0
    predictions = evaluator(classifier.params, options.data, options.split)
    if options.predictions is not None:
        write_predictions(predictions, options.predictions)
    results = accuracies(predictions)
    if options.json:
        figures = {name: dataclasses.asdict(one) | {"share": one.share} for name, one in results.items()}
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        title = f"{options.checkpoint} on {options.split} of {options.data}; one of k equal scores counts 1/k"
        Console().print(accuracy_table(title, results))
    return 0


def write_predictions(predictions: Predictions, path: str) -> None:
    """Write a line of JSON for each question: `id`, `scores` as the task computes them, `labels` and `credit`."""
    lines = []
    for row, name in enumerate(predictions.ids):
        values = {"scores": predictions.logits, "labels": dict(predictions.labels), "credit": dict(predictions.right)}
        lines.append({"id": name} | jax.tree.map(lambda array, row=row: array[row].tolist(), values))
    filesystem.write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def submit(task: Task, evaluator: Evaluator, classifier: Classifier, data: str, folder: str) -> list[str]:
    """Write the leaderboard files of a task into a folder, checked; returns their paths.

    Raises `UsageError` for a task without a leaderboard.
    """
    if task.submit is None:
        raise UsageError(f"the task {task.name!r} has no leaderboard; leave --submit out")
    predictions = {split: evaluator(classifier.params, data, split) for split in task.submitted_splits}
    filesystem.make_folder(folder)
    return task.submit(predictions, folder)


def metrics(results: dict[str, Accuracy]) -> dict[str, Any]:
    """Flatten accuracies to the figures of a line of metrics."""
    figures: dict[str, Any] = {f"val/{name}": one.share for name, one in results.items()}
    figures |= {f"val/chance/{name}": one.chance for name, one in results.items()}
    figures |= {f"val/majority/{name}": one.majority for name, one in results.items()}
    return figures | {"val/questions": max((one.asked for one in results.values()), default=0)}
