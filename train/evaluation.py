"""How good weights are on data they were not trained on: every loss, and accuracies with counts and 95 % intervals.

The same weights, data and batch size give the same numbers each time: records come in order, and their random choices
from their names.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich import box
from rich.console import Console
from rich.table import Table

from model import sharding
from model.config import ReserveConfig
from model.losses import contrastive
from shards.errors import UsageError
from shards.reader import PretrainingReader, StreamOptions
from shards.reading.cache import CacheOptions
from train import weights
from train.accuracy import Answers, answers
from train.compiling import announce
from train.config import TrainConfig
from train.intervals import wilson
from train.mesh import batch_shards, by_example, for_mesh, make_mesh, replicated, to_devices
from train.step import global_outputs

if TYPE_CHECKING:
    from train.evaluate import Pretraining

_SEED = 0
"""Of masks and of the places of sounds, whatever the seed of the run."""


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers: how many of how many, what guessing gives, and the bounds of its 95 % interval."""

    right: int
    asked: int
    chance: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """Right answers among those asked; 0 if nothing was asked."""
        return self.right / max(self.asked, 1)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. The keys are those of `model.losses.contrastive` and `train.accuracy.answers`."""

    examples: int
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
    """Evaluates parameters on one split of some data, as often as asked; the program is compiled once.

    Batches are of `config.batch_size` examples, so that there are as many candidates as in training; of a last batch
    that cannot be split over the mesh, nothing is used. The program's compilation is announced on `console`.
    """

    def __init__(
        self,
        config: TrainConfig,
        mesh: Mesh,
        data: str,
        split: str | None,
        console: Console,
        cache: CacheOptions | None = None,
        workers: int | None = None,
    ):
        bad_records = config.input.bad_records
        stream = StreamOptions(training=False, split=split, bad_records=bad_records, cache=cache, workers=workers)
        self._reader_config = dataclasses.replace(config.reader(), stream=stream)
        self._config, self._mesh, self._data, self._console = config, mesh, data, console
        self._compiled = False
        self._judge = jax.jit(
            partial(_judge, config=for_mesh(config.model, mesh), mesh=mesh),
            in_shardings=(None, by_example(mesh), None),
            out_shardings=replicated(mesh),
        )
        # Data that cannot be read should stop a run before its first step, not at its first evaluation.
        self._reader()

    def __call__(self, params: Mapping[str, Any]) -> Evaluation:
        """One pass over the split. Raises `UsageError` if it holds no whole batch."""
        losses: dict[str, float] = {}
        tallies: dict[str, list[np.ndarray]] = {}
        examples = 0
        if not self._compiled:
            announce(self._console, "the evaluation")
            self._compiled = True
        reader = self._reader()
        for number, batch in enumerate(reader):
            size = len(batch["images"]) * jax.process_count()
            if size % batch_shards(self._mesh):
                continue
            parts, given = jax.device_get(self._judge(params, to_devices(self._mesh, batch), number))
            examples += size
            for name, value in parts.items():
                losses[name] = losses.get(name, 0.0) + float(value) * size
            for name, counts in given.items():
                tallies.setdefault(name, []).append(counts)
        reader.close()
        if not examples:
            raise UsageError(
                f"{self._data!r} holds no batch that {batch_shards(self._mesh)} devices can share; add data"
            )
        return Evaluation(
            examples,
            {name: value / examples for name, value in losses.items()},
            {name: tally(np.concatenate(counts)) for name, counts in tallies.items()},
        )

    def _reader(self) -> PretrainingReader:
        hosts = jax.process_count()
        size = self._config.batch_size // hosts
        return PretrainingReader(self._data, self._reader_config, size, _SEED, jax.process_index(), hosts)


def tally(counts: np.ndarray) -> Accuracy:
    """The accuracy from rows `float [clusters, 3]` of right answers, of questions, and of right guesses expected.

    Answers about one example are alike, so the interval is Wilson's for as many independent questions as have the
    variance that is seen between examples (the design effect of cluster sampling).
    """
    right, asked, guessed = counts.sum(axis=0)
    share = right / max(asked, 1)
    low, high = wilson(float(share), float(asked) / design_effect(counts[:, 0], counts[:, 1]))
    return Accuracy(int(right), int(asked), float(guessed / max(asked, 1)), low, high)


def design_effect(right: np.ndarray, asked: np.ndarray) -> float:
    """How much larger the variance of a share is than if all questions were independent; at least 1."""
    clusters, total = np.count_nonzero(asked), asked.sum()
    share = right.sum() / max(total, 1)
    if clusters < 2 or not 0 < share < 1:
        return 1.0
    between = clusters / (clusters - 1) * np.square(right - share * asked).sum() / total**2
    return max(float(between / (share * (1 - share) / total)), 1.0)


def _judge(
    params: Mapping[str, Any], batch: Mapping[str, jax.Array], number: jax.Array, *, config: ReserveConfig, mesh: Mesh
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The losses of a batch, and for each accuracy the counts of every example, float32 `[examples, 3]`."""
    key = jax.random.fold_in(jax.random.key(_SEED), number)
    with sharding.on_mesh(mesh):
        outputs = global_outputs(config, params, batch, key)
        total, parts = contrastive(outputs, parity=config.parity)
        given = answers(outputs, batch, config)
    examples = batch["images"].shape[0]

    def by_example_of(given: Answers) -> jax.Array:
        columns = jnp.stack([given.right, given.asked, given.odds], axis=1).astype(jnp.float32)
        return jax.ops.segment_sum(columns, given.example, examples)

    counts = {name: by_example_of(one) for name, one in given.items()}
    return {"loss": total, **parts}, counts


def evaluate_pretraining(options: Pretraining) -> int:
    """Evaluate and print; returns the exit status."""
    loaded = weights.load(options.checkpoint)
    loaded.check_vocabulary(options.data, options.split)
    config = loaded.config
    if options.batch_size is not None:
        config = dataclasses.replace(config, batch_size=options.batch_size)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    evaluator = Evaluator(
        config, make_mesh(config.mesh), options.data, options.split, console, options.cache, options.reader_workers
    )
    found = evaluator(loaded.params)
    if options.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")
    else:
        print_tables(Console(), found, f"{options.checkpoint} on {options.split or 'all'} of {options.data}")
    return 0


def print_tables(console: Console, found: Evaluation, title: str) -> None:
    """Losses and accuracies as a person reads them."""
    losses = Table(title=f"{title}: losses over {found.examples} examples")
    losses.add_column("loss")
    losses.add_column("value", justify="right")
    for name, value in found.losses.items():
        losses.add_row(name, f"{value:.4f}")
    console.print(losses)
    console.print(accuracy_table("accuracy: is the partner the most similar candidate?", found.accuracies))


def accuracy_table(title: str, accuracies: Mapping[str, Accuracy]) -> Table:
    """One row an accuracy, with counts, interval and chance."""
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1), pad_edge=False, collapse_padding=True)
    table.add_column("what", no_wrap=True)
    for name in ("right", "accuracy", "95 % interval", "chance", "x chance"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in accuracies.items():
        scope, _, what = name.rpartition("/")
        table.add_row(
            f"{what}, in video" if scope.endswith("video") else what,
            f"{found.right}/{found.asked}",
            f"{found.share:.1%}",
            f"{found.low:.1%}-{found.high:.1%}",
            f"{found.chance:.1%}",
            f"{found.share / found.chance:.1f}" if found.chance else "-",
        )
    return table
