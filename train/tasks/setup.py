"""What a finetuning starts from: pretrained weights made into a classifier, and the data's vocabulary.

A checkpoint of the wrong kind, grid or vocabulary is refused with the reason before anything is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from model import published
from model.checkpoint_location import Location, locate
from model.checkpoints import CheckpointError
from model.config import DEFAULT_GRID, ConfigError, Remat, RematPolicy, ReserveConfig
from model.pretrained import Pretrained
from model.reserve import InputError, initial_parameters
from model.transformer import stack_layers
from shards import tokenizer
from shards.dataset import location as dataset
from shards.reading.source import Source
from shards.reading.vocabulary import Vocabulary, of_data
from shards.records.question_config import QuestionConfig
from shards.storage import fetch, filesystem
from shards.storage.errors import RecordError, UsageError, UserError
from shards.tokenizer_file import TOKENIZER_NAME
from train import run_config
from train.config import UNTRAINED
from train.tasks import Task
from train.tasks.scoring import fresh_projection

BEST_NAME = "best"


@dataclass(frozen=True)
class Classifier:
    """A network with its `proj`, and how its questions are read."""

    model: ReserveConfig
    params: dict
    reader: QuestionConfig


@dataclass(frozen=True)
class QuestionSet:
    """A data set of questions: its vocabulary, and the bytes of that vocabulary's file if it has one of its own."""

    vocabulary: Vocabulary
    tokenizer: bytes | None


def open_questions(data: str, split: str | None) -> QuestionSet:
    """Return what is known of the data before a record is read. Raises `UsageError` if there is none."""
    opened = dataset.open_data(data, split)
    path = filesystem.join(opened.folder, TOKENIZER_NAME)
    return QuestionSet(of_data(opened.folder, opened.manifest), filesystem.read_existing(path))


def fitted(task: Task, reader: QuestionConfig, data: str, split: str | None) -> QuestionConfig:
    """Return the reader with the sizes of the data's first record, for a task that does not fix them.

    Raises `UsageError` if it is a record of another kind.
    """
    if task.fit is None:
        return reader
    source = Source(data, split)
    try:
        return task.fit(reader, source.read(int((source.counts > 0).argmax()), 0))
    except RecordError as error:
        raise UsageError(f"{data!r} holds no questions of the task {task.name}: {error}") from None


def spelled(reader: QuestionConfig, data: str, vocabulary: Vocabulary) -> QuestionConfig:
    """Return the reader with its separators in the data's own vocabulary."""
    if vocabulary.digest == fetch.TOKENIZER.sha256:
        return reader
    folder = dataset.open_data(data).folder
    encode = tokenizer.load_tokenizer(filesystem.join(folder, TOKENIZER_NAME)).encode
    ids = {
        f"{word}_separator": tuple(encode(f"{word}: ", add_special_tokens=False).ids)
        for word in ("answer", "rationale")
    }
    names = {field.name for field in dataclasses.fields(reader)}
    return dataclasses.replace(reader, **{name: value for name, value in ids.items() if name in names})


def start(
    task: Task, init: str, grid: tuple[int, int], dtype: str, vocabulary: Vocabulary, seed: int
) -> tuple[ReserveConfig, dict]:
    """Return the model and the parameters to start from.

    `init` is what `model.published.load` takes, a work folder of `train.pretrain`, or a key of `UNTRAINED`. Raises
    `UsageError` for weights that this task cannot start from.
    """
    key = jax.random.key(seed)
    if init in UNTRAINED:
        model = dataclasses.replace(UNTRAINED[init], vocabulary_size=vocabulary.size, dtype=dtype).with_grid(grid)
        params = jax.jit(initial_parameters, static_argnums=0)(model, key)
    else:
        location = _located("--init", init)
        loaded = _load(location, grid, dtype, _pretrained_config(location))
        model, params = loaded.config, loaded.params
        _check_vocabulary(init, loaded, vocabulary)
    wanted = {name: tree for name, tree in params.items() if name not in task.dropped}
    if missing := sorted({"vision_encoder", "joint_transformer", "audio_encoder"} - set(task.dropped) - set(params)):
        raise UsageError(
            f"--init {init} was finetuned for another task and has no {missing[0]}, which {task.name} needs; start from"
            " pretrained weights"
        )
    return model, {"proj": fresh_projection(model.hidden_size, jax.random.fold_in(key, 1))} | wanted


def with_layout(
    model: ReserveConfig, params: dict, scan_layers: bool, remat: RematPolicy
) -> tuple[ReserveConfig, dict]:
    """Return the same network with its layers in one loop, and with what its stacks keep for the backward pass."""
    policy = Remat(vision=remat, audio=remat, span="none", joint=remat)
    model = dataclasses.replace(model, scan_layers=scan_layers, remat=policy)
    return model, stack_layers(params) if scan_layers else params


def load_classifier(task: Task, checkpoint: str, data: str) -> Classifier:
    """Return a finetuned model for the questions in `data`, as its run left it or as it was published.

    Raises `UsageError` if it is none, or of another vocabulary.
    """
    location = _located("--checkpoint", checkpoint)
    reader, grid, dtype, model = task.reader, DEFAULT_GRID, "float32", None
    if location.run is not None:
        stored = run_config.read_config(location.run)
        if "task" not in stored:
            raise UsageError(f"{location} is not finetuned for {task.name}; run train.finetune {task.name} first")
        if stored["task"] != task.name:
            raise UsageError(f"{location} was finetuned on {stored['task']}, not on {task.name}; name its own task")

        def parse(values: Mapping[str, Any]) -> tuple[QuestionConfig, ReserveConfig]:
            return reader_from(task, values["input"]), model_from(values["model"])

        reader, model = run_config.parsed(location.run, parse, stored)
        dtype, grid = model.dtype, reader.grid
    loaded = _load(location, grid, dtype, model)
    if "proj" not in loaded.params or set(task.dropped) & set(loaded.params):
        raise UsageError(f"{checkpoint!r} is not finetuned for {task.name}; run train.finetune {task.name} first")
    if "audio_encoder" not in task.dropped and "audio_encoder" not in loaded.params:
        raise UsageError(f"{checkpoint!r} was finetuned for another task: it has no audio_encoder")
    vocabulary = open_questions(data, None).vocabulary
    _check_vocabulary(checkpoint, loaded, vocabulary)
    reader = dataclasses.replace(reader, grid=loaded.config.grid, image_dtype=dtype, training=False)
    return Classifier(loaded.config, loaded.params, spelled(reader, data, vocabulary))


def reader_from(task: Task, stored: dict[str, Any]) -> QuestionConfig:
    """Return the reader's configuration behind its JSON."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return dataclasses.replace(task.reader, **plain)


def model_from(stored: dict[str, Any]) -> ReserveConfig:
    """Return the model's configuration behind its JSON."""
    return ReserveConfig(**{**stored, "remat": Remat(**stored["remat"])})


def _located(flag: str, name: str) -> Location:
    try:
        return locate(name)
    except CheckpointError as error:
        raise UsageError(f"{flag} {name}: {error}") from None


def _pretrained_config(location: Location) -> ReserveConfig | None:
    """Return the model of the pretraining run that the weights are of, if it is known."""
    if location.run is None:
        return None
    stored = run_config.read_config(location.run)
    return run_config.parsed(location.run, lambda values: model_from(values["model"]), stored)


def _load(location: Location, grid: tuple[int, int], dtype: str, config: ReserveConfig | None = None) -> Pretrained:
    """Weights in the configuration of their run if it is known, else as their file and `grid` say."""
    if config is not None:
        config = dataclasses.replace(config, dtype=dtype, scan_layers=False).with_grid(grid)
    try:
        return published.load(location.path, grid=grid, config=config, dtype=dtype)
    except (CheckpointError, ConfigError, InputError) as error:
        raise UsageError(f"{location.path}: {error}") from None
    except fetch.FetchError as error:
        raise UserError(f"{location.path}: {error}") from None


def _check_vocabulary(name: str, loaded: Pretrained, vocabulary: Vocabulary) -> None:
    digest = tokenizer.digest(loaded.tokenizer_file) if loaded.tokenizer_file else fetch.TOKENIZER.sha256
    if digest != vocabulary.digest or loaded.config.vocabulary_size != vocabulary.size:
        raise UsageError(
            f"the data has the vocabulary {vocabulary.digest[:12]} of {vocabulary.size} tokens and {name} was trained"
            f" with {digest[:12]} of {loaded.config.vocabulary_size}; prepare the data with --tokenizer of the weights"
        )
