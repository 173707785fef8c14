"""Trained weights with the configuration they were trained in, from whatever a person points at.

A work folder gives its newest checkpoint in full precision, an export its float16 file; published weights come with the
published configuration. Nothing is changed on disk.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from model import published
from model.checkpoint_location import CHECKPOINTS_NAME, Location, is_run, locate
from model.checkpoints import CheckpointError
from model.config import DEFAULT_GRID, ConfigError, ReserveConfig
from model.pretrained import Pretrained
from model.reserve import InputError
from shards.dataset import location as dataset
from shards.reading.vocabulary import Vocabulary, of_data
from shards.storage import filesystem
from shards.storage.errors import UsageError
from train import run_config
from train.checkpoint import Checkpoints
from train.config import TrainConfig, from_json
from train.configs.base import CONFIG as BASE
from train.mesh import make_mesh
from train.step import state_shapes

EXPORT_NAME = "export"


@dataclass(frozen=True)
class Weights:
    """Parameters, which they are, their run's configuration, and the digest of its vocabulary if it is known."""

    name: str
    params: dict
    config: TrainConfig
    vocabulary: str | None

    def check_vocabulary(self, data: str, split: str | None) -> Vocabulary:
        """Return the vocabulary of the data. Raises `UsageError` if it is not that of the weights."""
        opened = dataset.open_data(data, split)
        vocabulary = of_data(opened.folder, opened.manifest)
        if self.vocabulary not in (None, vocabulary.digest):
            raise UsageError(
                f"{data!r} was written with the vocabulary {vocabulary.digest[:12]} and the weights were trained with"
                f" {self.vocabulary[:12]}; evaluate on data of the same vocabulary"
            )
        if vocabulary.size != self.config.model.vocabulary_size:
            raise UsageError(
                f"{data!r} has a vocabulary of {vocabulary.size} tokens and the weights one of"
                f" {self.config.model.vocabulary_size}; evaluate on data of the same vocabulary"
            )
        return vocabulary


def load(checkpoint: str) -> Weights:
    """Load the weights at a work folder, its `export`, a file in there, a published name or another checkpoint.

    A work folder gives its newest checkpoint. Raises `UsageError` if there are none, `CheckpointError` if they are
    damaged.
    """
    folder = checkpoint.rstrip("/")
    if not _is_path(checkpoint) or not is_run(folder):
        location = _located(checkpoint)
        if location.run is None:
            loaded = _published(location, None)
            return Weights(str(location), loaded.params, dataclasses.replace(BASE, model=loaded.config), None)
        config, vocabulary = _config_of(location.run)
        return Weights(str(location), _published(location, config.model).params, config, vocabulary)
    config, vocabulary = _config_of(folder)
    mesh = make_mesh(config.mesh)
    restored, place = None, filesystem.join(folder, CHECKPOINTS_NAME)
    if filesystem.exists(place):
        checkpoints = Checkpoints(place, config.keep, config.keep_every)
        restored = checkpoints.restore(state_shapes(config), mesh)
        checkpoints.close()
    if restored is None:
        raise UsageError(f"{checkpoint!r} holds no checkpoint yet; wait for its first one or give another folder")
    name = f"checkpoint {int(restored.state.step)} of the run {folder}"
    return Weights(name, restored.state.params, config, vocabulary)


def pretrained(checkpoint: str) -> Pretrained:
    """Load the exported weights of a finished run, at its work folder or its `export`, for `model.inference`.

    Raises `UsageError` if they are not there.
    """
    location = _located(checkpoint)
    if location.run is None:
        raise UsageError(f"{checkpoint!r} is not the work folder of a run, nor an export in one")
    return _published(location, _config_of(location.run)[0].model)


def _config_of(run: str) -> tuple[TrainConfig, str]:
    stored = run_config.read_config(run)
    return run_config.parsed(run, lambda values: (from_json(values), str(values["tokenizer"])), stored)


def _is_path(checkpoint: str) -> bool:
    return published.remote_file(checkpoint, DEFAULT_GRID) is None


def _located(checkpoint: str) -> Location:
    try:
        return locate(checkpoint)
    except CheckpointError as error:
        raise UsageError(f"{checkpoint}: {error}") from None


def _published(location: Location, config: ReserveConfig | None) -> Pretrained:
    try:
        return published.load(location.path, grid=config.grid if config else BASE.model.grid, config=config)
    except (CheckpointError, ConfigError, InputError) as error:
        raise UsageError(f"{location.path}: {error}") from None
