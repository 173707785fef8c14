"""A pretraining run from its options: settle its configuration, restore or start, train, and export."""

from __future__ import annotations

import dataclasses
import logging

import jax
from rich.console import Console

from model import published
from model.checkpoint_location import CHECKPOINTS_NAME, is_run, locate
from model.checkpoints import CheckpointError
from model.config import ConfigError
from model.flops import pretraining_flops
from model.reserve import InputError
from shards.dataset import location as dataset
from shards.reader import PretrainingReader
from shards.reading.vocabulary import Vocabulary, of_data
from shards.storage import filesystem
from shards.storage.errors import UsageError
from shards.tokenizer_file import TOKENIZER_NAME
from train import run_config
from train.checkpoint import Checkpoints, export_published, silence_orbax
from train.compilation.compiling import announce, keep_programs
from train.compilation.layouts import for_devices
from train.config import TrainConfig, fit_to_data
from train.distributed import hosts
from train.evaluation import Evaluator
from train.loop import check_trained, train
from train.mesh import check_batch, make_mesh
from train.metrics.metric_writer import Journal
from train.metrics.profiler import NAME as PROFILE_NAME
from train.metrics.profiler import Trace
from train.options import PretrainOptions
from train.step import TrainState, initial_state, state_shapes
from train.weights import EXPORT_NAME


def pretrain(options: PretrainOptions) -> int:
    """Train, export, and say what happened; returns the exit status."""
    stop = hosts.Stop()
    keep_programs(options.workdir)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=not hosts.is_first())
    config, vocabulary, tokenizer = settle(options)
    hosts.check_same(repr((config, options.data, options.workdir, options.init)).encode())
    stored, config = config, for_devices(config, jax.devices())
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.batch_size)
    filesystem.make_folder(options.workdir)
    with filesystem.exclusive(filesystem.join(options.workdir, f".lock-{jax.process_index()}")):
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        silence_orbax()
        initial = check_config(options, stored, vocabulary)
        reader = PretrainingReader(
            options.data,
            [turn.reader(options.cache, options.reader_workers) for turn in config.turns()],
            config.batch_size // jax.process_count(),
            config.seed,
            jax.process_index(),
            jax.process_count(),
        )
        if config.batch_size > reader.records:
            raise UsageError(
                f"batch_size {config.batch_size} is larger than the {reader.records} examples of {options.data!r}: an"
                f" example would be contrasted with itself; use at most {reader.records}"
            )
        checkpoints = Checkpoints(filesystem.join(options.workdir, CHECKPOINTS_NAME), config.keep, config.keep_every)
        state = start(options, config, mesh, reader, checkpoints, console)
        # Only now: a run that could not start leaves no folder that the mended command does not fit.
        store_config(options, stored, vocabulary, initial)
        evaluator = None
        if config.evaluate_every:
            evaluator = Evaluator(
                config,
                mesh,
                options.data,
                config.evaluation_split,
                vocabulary,
                console,
                options.cache,
                options.reader_workers,
            )

        flops = 3 * sum(pretraining_flops(config.model).values())
        resolved = dataclasses.asdict(config)
        trace = Trace(filesystem.join(options.workdir, PROFILE_NAME), options.profile)
        if int(state.step) < config.steps:
            announce(console, "the training step")
        with Journal(options.workdir, int(state.step), config.steps, console, flops, resolved) as journal:
            state = train(config, mesh, state, reader, checkpoints, options.workdir, stop, journal, evaluator, trace)
        trace.close()
        reader.close()
        checkpoints.close()
        step = int(state.step)
        if step < config.steps:
            console.print(f"stopped at step {step} of {config.steps}; the same command continues")
            return 0
        check_trained(state)
        path = export_published(state, filesystem.join(options.workdir, EXPORT_NAME), tokenizer, config.model)
        console.print(f"finished {step} steps; the weights are in {path}")
    return 0


def settle(options: PretrainOptions) -> tuple[TrainConfig, Vocabulary, bytes | None]:
    """The configuration fitted to the data, the data's vocabulary, and the bytes of its file unless published."""
    opened = dataset.open_data(options.data, options.config.input.split)
    vocabulary = of_data(opened.folder, opened.manifest)
    segments = opened.manifest.segments_per_example if opened.manifest else options.config.model.segments
    config = fit_to_data(options.config, vocabulary.size, segments)
    beside = filesystem.join(opened.folder, TOKENIZER_NAME)
    return config, vocabulary, filesystem.read_bytes(beside) if filesystem.exists(beside) else None


def check_config(options: PretrainOptions, config: TrainConfig, vocabulary: Vocabulary) -> str | None:
    """Return the weights that the run starts or started from.

    Raises `UsageError` if the work folder is that of another run.
    """
    if options.replace_config or not is_run(options.workdir):
        return options.init
    ours = config.numbers() | {"tokenizer": vocabulary.digest}
    if options.init is not None:
        ours |= {"init": options.init}
    stored = run_config.read_config(options.workdir)
    way_out = "choose another --workdir, or pass --replace-config to go on all the same"
    run_config.check_same(options.workdir, ours, {"init": None} | stored, way_out)
    return stored.get("init")


def store_config(options: PretrainOptions, config: TrainConfig, vocabulary: Vocabulary, initial: str | None) -> None:
    """Write the resolved configuration of the run into its work folder."""
    if hosts.is_first():
        resolved = dataclasses.asdict(config) | {
            "preset": options.preset,
            "tokenizer": vocabulary.digest,
            "data": options.data,
            "init": initial,
        }
        run_config.write_config(options.workdir, resolved)


def start(
    options: PretrainOptions,
    config: TrainConfig,
    mesh: jax.sharding.Mesh,
    reader: PretrainingReader,
    checkpoints: Checkpoints,
    console: Console,
) -> TrainState:
    """The state to train from: the newest checkpoint, else given weights, else fresh ones; moves the reader there."""
    restored = checkpoints.restore(state_shapes(config), mesh)
    if restored is not None:
        reader.restore(restored.reader)
        console.print(f"continuing from step {int(restored.state.step)}")
        return restored.state
    if options.init is None:
        return initial_state(config, mesh)
    try:
        location = locate(options.init)
        params = published.load(location.path, config=config.model).params
    except (CheckpointError, ConfigError, InputError) as error:
        raise UsageError(f"--init {options.init}: {error}") from None
    console.print(f"starting from the weights {location}")
    return initial_state(config, mesh, params)
