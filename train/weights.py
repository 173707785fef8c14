"""Trained weights with the configuration they were trained in, from whatever a person points at.

A work folder gives its newest checkpoint in full precision, an export its float16 file; published weights come with the
published configuration. Nothing is changed on disk.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from model import published
from model.config import ConfigError, ReserveConfig
from model.reserve import InputError
from shards import dataset, filesystem
from shards.errors import UsageError
from shards.vocabulary import Vocabulary, of_data
from train.checkpoint import Checkpoints
from train.config import BASE, TrainConfig, from_json
from train.mesh import make_mesh
from train.step import state_shapes

CONFIG_NAME = "config.json"
CHECKPOINTS_NAME = "checkpoints"
EXPORT_NAME = "export"


@dataclass(frozen=True)
class Weights:
    """Parameters, their run's configuration, and the digest of its vocabulary if it is known."""

    params: dict
    config: TrainConfig
    vocabulary: str | None

    def check_vocabulary(self, data: str, split: str | None) -> Vocabulary:
        """Return the vocabulary of the data. Raises `UsageError` if it is not that of the weights."""
        opened = dataset.open_data(data, split)
        held = of_data(opened.folder, opened.manifest)
        if self.vocabulary not in (None, held.digest):
            raise UsageError(
                f"{data!r} was written with the vocabulary {held.digest[:12]} and the weights were trained with"
                f" {self.vocabulary[:12]}; evaluate on data of the same vocabulary"
            )
        if held.size != self.config.model.vocabulary_size:
            raise UsageError(
                f"{data!r} has a vocabulary of {held.size} tokens and the weights one of"
                f" {self.config.model.vocabulary_size}; evaluate on data of the same vocabulary"
            )
        return held


def load(checkpoint: str) -> Weights:
    """The weights at a work folder, its `export`, a file in there, a published name or another checkpoint.

    Raises `UsageError` if there are none, `CheckpointError` if they are damaged.
    """
    folder = next(filter(_holds_config, _folders(checkpoint)), None)
    if folder is None:
        loaded = _published(checkpoint, None)
        return Weights(loaded.params, dataclasses.replace(BASE, model=loaded.config), None)
    stored = json.loads(filesystem.read_bytes(filesystem.join(folder, CONFIG_NAME)))
    config, vocabulary = from_json(stored), stored["tokenizer"]
    if folder != checkpoint.rstrip("/"):
        return Weights(_published(checkpoint, config.model).params, config, vocabulary)
    mesh = make_mesh(config.mesh)
    restored, place = None, filesystem.join(folder, CHECKPOINTS_NAME)
    if filesystem.exists(place):
        checkpoints = Checkpoints(place, config.keep, config.keep_every)
        restored = checkpoints.restore(state_shapes(config), mesh)
        checkpoints.close()
    if restored is None:
        raise UsageError(f"{checkpoint!r} holds no checkpoint yet; wait for its first one or give another folder")
    return Weights(restored.state.params, config, vocabulary)


def pretrained(checkpoint: str) -> published.Pretrained:
    """The exported weights of a finished run, at its work folder or its `export`, ready for `model.inference`.

    Raises `UsageError` if they are not there.
    """
    folder = next(filter(_holds_config, _folders(checkpoint)), None)
    if folder is None:
        raise UsageError(f"{checkpoint!r} is no work folder of a run and no export in one; it needs a {CONFIG_NAME}")
    config = from_json(json.loads(filesystem.read_bytes(filesystem.join(folder, CONFIG_NAME))))
    export = filesystem.join(folder, EXPORT_NAME) if folder == checkpoint.rstrip("/") else checkpoint
    return _published(export, config.model)


def _folders(checkpoint: str) -> list[str]:
    """Where the configuration of a checkpoint may be: a work folder, that of an export, or of a file in an export."""
    path = checkpoint.rstrip("/")
    parent = path.rpartition("/")[0]
    places = (place.rpartition("/") for place in (path, parent))
    return [path, *(above or "." for above, _, name in places if name == EXPORT_NAME)]


def _holds_config(folder: str) -> bool:
    """Whether a work folder is there; web addresses are none."""
    return "://" not in folder.removeprefix("gs://") and filesystem.exists(filesystem.join(folder, CONFIG_NAME))


def _published(checkpoint: str, config: ReserveConfig | None) -> published.Pretrained:
    try:
        return published.load(checkpoint, grid=config.grid if config else BASE.model.grid, config=config)
    except (published.CheckpointError, ConfigError, InputError) as error:
        raise UsageError(f"{checkpoint}: {error}") from None
