"""A pretraining run from its options: resolve the configuration, restore or initialize, train, and export."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from model import published
from model.checkpoint_location import is_run, locate
from model.checkpoints import CheckpointError
from model.config import ConfigError
from model.flops import pretraining_flops
from model.reserve import InputError
from shards.dataset import location as dataset
from shards.reader import PretrainingReader
from shards.reading.vocabulary import Vocabulary, of_data
from shards.storage import filesystem, stored_config
from shards.storage.errors import UsageError
from shards.tokenizer_file import TOKENIZER_NAME
from train import loop, run_config
from train.checkpoint import Checkpoints, export_published
from train.compilation.layouts import for_devices
from train.config import TrainConfig, fit_to_data
from train.distributed import hosts
from train.evaluation import Evaluator
from train.loop import LoopConfig
from train.mesh import check_batch, make_mesh
from train.options import PretrainOptions
from train.run import Run
from train.state import TrainState
from train.step import initial_state, make_step, state_shapes
from train.weights import EXPORT_NAME


def pretrain(options: PretrainOptions) -> int:
    """Train and export; returns the exit status."""
    run = Run.start(options.workdir)
    stored, vocabulary, tokenizer = resolve(options)
    run.check_same_options(stored, options.data, options.workdir, options.init)
    config = for_devices(stored, jax.devices())
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.batch_size)
    with run.locked():
        init = check_config(options, stored, vocabulary)
        reader = open_reader(options, config)
        checkpoints = run.checkpoints(config, config.keep_every)
        state = restore_or_initialize(run, options, config, mesh, reader, checkpoints)
        # Only now, so that a run that could not start leaves no configuration that the corrected command contradicts.
        store_config(options, stored, vocabulary, init)
        evaluate = open_evaluation(run, options, config, mesh, vocabulary) if config.evaluate_every else None
        flops = 3 * sum(pretraining_flops(config.model).values())
        first = int(state.step)
        with run.hooks(first, config.steps, options.profile, dataclasses.asdict(config), evaluate, flops) as hooks:
            state = loop.run(
                loop.in_turn([make_step(turn, mesh) for turn in config.turns()], first),
                LoopConfig.of(config, config.steps, config.evaluate_every),
                mesh,
                state,
                reader,
                checkpoints,
                options.workdir,
                hooks,
            )
        reader.close()
        checkpoints.close()
        step = int(state.step)
        if step < config.steps:
            run.report_stop(step, config.steps)
            return 0
        loop.check_trained(state)
        path = export_published(state, filesystem.join(options.workdir, EXPORT_NAME), tokenizer, config.model)
        run.console.print(f"finished {step} steps; the weights are in {path}")
    return 0


def resolve(options: PretrainOptions) -> tuple[TrainConfig, Vocabulary, bytes | None]:
    """Return the configuration fitted to the data, the data's vocabulary, and its tokenizer file if it has one."""
    opened = dataset.open_data(options.data, options.config.input.split)
    vocabulary = of_data(opened.folder, opened.manifest)
    segments = opened.manifest.segments_per_example if opened.manifest else options.config.model.segments
    config = fit_to_data(options.config, vocabulary.size, segments)
    path = filesystem.join(opened.folder, TOKENIZER_NAME)
    return config, vocabulary, filesystem.read_existing(path)


def check_config(options: PretrainOptions, config: TrainConfig, vocabulary: Vocabulary) -> str | None:
    """Return the initial weights of the run in the work folder, or those of the options for a new run.

    Raises `UsageError` if the work folder belongs to a run with a different configuration.
    """
    if options.replace_config or not is_run(options.workdir):
        return options.init
    requested = config.numbers() | {"tokenizer": vocabulary.digest}
    if options.init is not None:
        requested |= {"init": options.init}
    stored = run_config.read_config(options.workdir)
    way_out = "choose another --workdir, or pass --replace-config to continue with the new configuration"
    stored_config.require_same(options.workdir, requested, {"init": None} | stored, way_out)
    return stored.get("init")


def store_config(options: PretrainOptions, config: TrainConfig, vocabulary: Vocabulary, init: str | None) -> None:
    """Write the resolved configuration of the run into its work folder."""
    if hosts.is_first():
        resolved = dataclasses.asdict(config) | {
            "preset": options.preset,
            "tokenizer": vocabulary.digest,
            "data": options.data,
            "init": init,
        }
        run_config.write_config(options.workdir, resolved)


def open_reader(options: PretrainOptions, config: TrainConfig) -> PretrainingReader:
    """Open the reader of this process. Raises `UsageError` for a batch that is larger than the data."""
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
    return reader


def restore_or_initialize(
    run: Run,
    options: PretrainOptions,
    config: TrainConfig,
    mesh: jax.sharding.Mesh,
    reader: PretrainingReader,
    checkpoints: Checkpoints,
) -> TrainState:
    """Return the state to train from, in this order; moves the reader to its position.

    1. The newest checkpoint of the work folder.
    2. The weights of `--init`, with a new optimizer state.
    3. Fresh weights from the seed.
    """
    restored = checkpoints.restore(state_shapes(config), mesh)
    if restored is not None:
        reader.restore(restored.reader)
        run.console.print(f"continuing from step {int(restored.state.step)}")
        return restored.state
    if options.init is None:
        return initial_state(config, mesh)
    try:
        location = locate(options.init)
        params = published.load(location.path, config=config.model).params
    except (CheckpointError, ConfigError, InputError) as error:
        raise UsageError(f"--init {options.init}: {error}") from None
    run.console.print(f"starting from the weights {location}")
    return initial_state(config, mesh, params)


def open_evaluation(
    run: Run, options: PretrainOptions, config: TrainConfig, mesh: jax.sharding.Mesh, vocabulary: Vocabulary
) -> Callable[[dict], dict[str, float]]:
    """Return the function that evaluates parameters on the evaluation split. Raises `UsageError` without that split."""
    evaluator = Evaluator(
        config,
        mesh,
        options.data,
        config.evaluation_split,
        vocabulary,
        run.console,
        options.cache,
        options.reader_workers,
    )
    return lambda params: evaluator(params).metrics()
