"""How good weights are on data they were not trained on: every loss, and accuracies with counts and 95 % intervals.

Every example counts once: the last batch is filled up with rows that are neither queries nor candidates. The same
weights, data and batch size give the same numbers each time: records come in order, and their random choices from their
names.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from model import sharding
from model.config import ReserveConfig
from model.losses import contrastive
from shards.reading.cache import CacheOptions
from shards.reading.config import StreamOptions
from shards.reading.evaluation import IS_RECORD, Pass
from shards.reading.examples import record_streams
from shards.reading.pretraining import PretrainingParser
from shards.reading.vocabulary import Vocabulary
from shards.storage.errors import UserError
from train import weights
from train.compilation.compiling import announce
from train.config import TrainConfig
from train.mesh import batch_shards, by_example, check_batch, for_mesh, make_mesh, replicated, to_devices
from train.metrics.accuracy import Answers, answers
from train.metrics.example_mask import only
from train.metrics.figures import Accuracy, NotFiniteError, accuracy_table, tally
from train.options import PretrainingEvaluation
from train.step import global_outputs, group_size

_SEED = 0
"""Of masks and of the places of sounds, whatever the seed of the run."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of an evaluation, with the keys of `model.losses.contrastive` and `train.metrics.accuracy.answers`.

    `batch_size` is the number of examples that are candidates for each other, `damaged` that of records left out.
    """

    examples: int
    batch_size: int
    damaged: int
    losses: dict[str, float]
    accuracies: dict[str, Accuracy]

    def metrics(self) -> dict[str, float]:
        """Flat figures for a line of metrics."""
        figures = dict(self.losses)
        for name, accuracy in self.accuracies.items():
            figures[name] = accuracy.share
            figures[name.replace("accuracy", "chance")] = accuracy.chance
        return {f"val/{name}": value for name, value in figures.items()}


class Evaluator:
    """Evaluates parameters on one split of some data any number of times; the program is compiled once.

    Batches are of `config.batch_size` examples, or of all where the split has fewer, so that there are as many
    candidates as in training. Devices that cannot share such a batch get rows without an example. The program's
    compilation is announced on `console`.
    """

    def __init__(
        self,
        config: TrainConfig,
        mesh: Mesh,
        data: str,
        split: str | None,
        vocabulary: Vocabulary,
        console: Console,
        cache: CacheOptions | None = None,
        workers: int | None = None,
    ):
        """`vocabulary` is the data's. Raises `UsageError` for data that cannot be read, before any step is made."""
        reader = dataclasses.replace(config.reader(), stream=StreamOptions(training=False), record_digest=False)
        self._parser = PretrainingParser(reader, vocabulary)
        self._config, self._mesh, self._data, self._split, self._console = config, mesh, data, split, console
        self._cache, self._workers = cache, workers
        records = self._batches(jax.process_count(), None).records
        self.batch_size = min(config.batch_size, records)
        unit = math.lcm(batch_shards(mesh), jax.process_count()) * group_size(config.model)
        self._rows = -(-self.batch_size // unit) * unit
        check_batch(mesh, self._rows)
        self._compiled = False
        self._evaluate = jax.jit(
            partial(_evaluate_batch, config=for_mesh(config.model, mesh), mesh=mesh),
            in_shardings=(None, by_example(mesh), None),
            out_shardings=replicated(mesh),
        )

    def __call__(self, params: dict) -> Evaluation:
        """Evaluate on one pass over the split. Raises `NotFiniteError` for losses that are not finite."""
        losses: dict[str, float] = {}
        tallies: dict[str, list[np.ndarray]] = {}
        examples = 0
        if not self._compiled:
            announce(self._console, "the evaluation")
            self._compiled = True
        batches = self._batches(self._rows, self.batch_size)
        for number, batch in enumerate(batches):
            size, parts, counts = jax.device_get(self._evaluate(params, to_devices(self._mesh, batch), number))
            examples += int(size)
            for name, value in parts.items():
                losses[name] = losses.get(name, 0.0) + float(value) * int(size)
            for name, rows in counts.items():
                tallies.setdefault(name, []).append(rows)
        if not examples:
            raise UserError(f"all {batches.records} records of {self._data!r} are damaged; prepare the split again")
        losses = {name: value / examples for name, value in losses.items()}
        if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise NotFiniteError(
                f"the loss {bad[0]!r} on {self._data!r} is {losses[bad[0]]}: the weights are damaged or their training"
                " diverged; evaluate an earlier checkpoint"
            )
        return Evaluation(
            examples,
            self.batch_size,
            batches.records - examples,
            losses,
            {name: tally(np.concatenate(rows)) for name, rows in tallies.items()},
        )

    def _batches(self, rows: int, examples: int | None) -> Pass:
        """Return the batches of the split: `rows` on all hosts, of which at most `examples` hold one."""
        hosts = jax.process_count()
        return Pass(
            self._data,
            self._split,
            self._parser,
            rows // hosts,
            jax.process_index(),
            hosts,
            self._cache,
            self._workers,
            records_per_batch=examples,
            streams=partial(record_streams, _SEED, 0),
            bad_records=self._config.input.bad_records,
        )


def _evaluate_batch(
    params: dict, batch: Mapping[str, jax.Array], number: jax.Array, *, config: ReserveConfig, mesh: Mesh
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """Return the number of examples, the losses, and for each accuracy the counts of every row, float32 `[rows, 3]`."""
    key = jax.random.fold_in(jax.random.key(_SEED), number)
    is_record = batch[IS_RECORD]
    batch = {name: array for name, array in batch.items() if name != IS_RECORD}
    with sharding.on_mesh(mesh):
        outputs = only(global_outputs(config, params, batch, key), is_record, batch, config)
        total, parts = contrastive(outputs, parity=config.parity)
        results = answers(outputs, batch, config)
    rows = len(is_record)

    def by_example_of(results: Answers) -> jax.Array:
        columns = jnp.stack([results.right, results.counted, results.odds], axis=1).astype(jnp.float32)
        return jax.ops.segment_sum(columns, results.example, rows)

    counts = {name: by_example_of(one) for name, one in results.items()}
    losses = {name: value for name, value in parts.items() if not name.endswith("_invalid")}
    return is_record.sum(), {"loss": total, **losses}, counts


def evaluate_pretraining(options: PretrainingEvaluation) -> int:
    """Evaluate and print; returns the exit status."""
    loaded = weights.load(options.checkpoint)
    vocabulary = loaded.check_vocabulary(options.data, options.split)
    config = loaded.config
    if options.batch_size is not None:
        config = dataclasses.replace(config, batch_size=options.batch_size)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(f"evaluating {loaded.name}")
    evaluator = Evaluator(
        config,
        make_mesh(config.mesh),
        options.data,
        options.split,
        vocabulary,
        console,
        options.cache,
        options.reader_workers,
    )
    evaluation = evaluator(loaded.params)
    if options.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(evaluation)) + "\n")
    else:
        print_tables(Console(), evaluation, f"{options.checkpoint} on {options.split or 'all'} of {options.data}")
    return 0


def print_tables(console: Console, evaluation: Evaluation, title: str) -> None:
    """Print tables of losses and accuracies."""
    damaged = f", {evaluation.damaged} damaged ones left out" if evaluation.damaged else ""
    losses = Table(
        title=f"{title}: losses over {evaluation.examples} examples in batches of {evaluation.batch_size}{damaged}"
    )
    losses.add_column("loss")
    losses.add_column("value", justify="right")
    for name, value in evaluation.losses.items():
        losses.add_row(name, f"{value:.4f}")
    console.print(losses)
    title = "accuracy: is the partner the most similar candidate? one of k equal ones counts 1/k"
    console.print(accuracy_table(title, evaluation.accuracies))
