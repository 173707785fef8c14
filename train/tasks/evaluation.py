"""How well a classifier answers a split, and what it says: accuracies with counts, predictions, leaderboard files.

Every question is asked once, also the last ones that fill no batch, and all hosts take part.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from model.config import ReserveConfig
from shards import filesystem
from shards.errors import UsageError
from shards.reading.cache import CacheOptions
from shards.reading.evaluation import IS_RECORD, Pass
from shards.reading.question_config import QuestionConfig
from shards.reading.questions import read_ids
from train.compiling import announce
from train.config import MeshConfig
from train.intervals import wilson
from train.mesh import check_batch, make_mesh, to_devices
from train.tasks import Predictions, Task
from train.tasks.setup import Classifier, load_classifier
from train.tasks.step import make_judge
from train.tasks.table import TASKS

if TYPE_CHECKING:
    from train.evaluate import QuestionEvaluation


@dataclass(frozen=True)
class Share:
    """A share of right answers, how many were asked, and the bounds of its 95 % interval (Wilson)."""

    right: int
    asked: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Right answers among those asked."""
        return self.right / max(self.asked, 1)


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
        """`batch_size` is that of all hosts together; compiling is announced on `console`.

        Raises `UsageError` if the batch cannot be divided.
        """
        check_batch(mesh, batch_size)
        if batch_size % jax.process_count():
            raise UsageError(f"batch_size {batch_size} is not divisible by the {jax.process_count()} hosts")
        self.model, self._parser, self._mesh, self._cache = model, task.parser(reader), mesh, cache
        self._workers = workers
        self._size = batch_size // jax.process_count()
        self._judge = make_judge(task, model, mesh)
        self._console, self._compiled = console, False

    def __call__(self, params: dict, data: str, split: str | None) -> Predictions:
        """What the classifier says of every question. Raises `UsageError` if there is no such split."""
        if not self._compiled:
            announce(self._console, "the evaluation")
            self._compiled = True
        hosts = jax.process_count()
        batches = Pass(data, split, self._parser, self._size, jax.process_index(), hosts, self._cache, self._workers)
        ids: list[str] = []
        parts = []
        for batch in batches:
            marks, logits, right = jax.device_get(self._judge(params, to_devices(self._mesh, batch)))
            real = marks[IS_RECORD]
            ids += read_ids(marks["id"][real])
            parts.append(jax.tree.map(lambda array, real=real: np.asarray(array)[real], (logits, right)))
        logits, right = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        return Predictions(ids, logits, right)


def shares(found: Predictions) -> dict[str, Share]:
    """The accuracies of predictions whose questions have labels."""
    return {name: share(int(hits.sum()), len(hits)) for name, hits in found.right.items()}


def share(right: int, asked: int) -> Share:
    """A share with Wilson's 95 % interval."""
    return Share(right, asked, *wilson(right / max(asked, 1), asked))


def evaluate(options: QuestionEvaluation) -> int:
    """Evaluate on the task of the options, or write its leaderboard file, and print; returns the exit status."""
    task, mesh = TASKS[options.task], make_mesh(MeshConfig())
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
    found = shares(evaluator(classifier.params, options.data, options.split))
    if options.json:
        figures = {name: dataclasses.asdict(one) | {"share": one.share} for name, one in found.items()}
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        Console().print(table(f"{options.checkpoint} on {options.split} of {options.data}", found))
    return 0


def submit(task: Task, evaluator: Evaluator, classifier: Classifier, data: str, folder: str) -> list[str]:
    """Write the leaderboard files of a task into a folder, checked; returns their paths.

    Raises `UsageError` for a task without a leaderboard.
    """
    if task.submit is None:
        raise UsageError(f"the task {task.name!r} has no leaderboard; leave --submit out")
    predictions = {split: evaluator(classifier.params, data, split) for split in task.submitted_splits}
    filesystem.make_folder(folder)
    return task.submit(predictions, folder)


def table(title: str, found: dict[str, Share]) -> Table:
    """One row an accuracy, with counts and interval."""
    lines = Table(title=title)
    lines.add_column("accuracy")
    for column in ("right", "share", "95 % interval"):
        lines.add_column(column, justify="right")
    for name, one in found.items():
        lines.add_row(name, f"{one.right} of {one.asked}", f"{one.share:.1%}", f"{one.low:.1%} to {one.high:.1%}")
    return lines


def metrics(found: dict[str, Share]) -> dict[str, Any]:
    """Flat figures for a line of metrics."""
    figures: dict[str, Any] = {f"val/{name}": one.share for name, one in found.items()}
    return figures | {"val/questions": max((one.asked for one in found.values()), default=0)}
