"""A finetuning run from its options: train, evaluate after every epoch, keep the best; and sweeps of such runs."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import jax
from rich.console import Console

from model.checkpoint_location import CHECKPOINTS_NAME, is_run
from model.config import ReserveConfig
from shards.reader import Reader, StreamOptions
from shards.records.question_config import QuestionConfig
from shards.storage import filesystem
from train import run_config
from train.checkpoint import Checkpoints, export_published, silence_orbax
from train.compilation.compiling import announce, keep_programs
from train.distributed import hosts
from train.distributed.processes import Hosts
from train.loop import Rhythm, check_trained, run
from train.mesh import check_batch, make_mesh
from train.metrics.figures import accuracy_table
from train.metrics.formatting import EVALUATIONS_NAME, MetricsLog
from train.metrics.metric_writer import Journal
from train.metrics.profiler import NAME as PROFILE_NAME
from train.metrics.profiler import Trace
from train.options import FinetuneOptions
from train.step import TrainState
from train.tasks import Task, setup
from train.tasks.evaluation import Evaluator, accuracies, metrics
from train.tasks.setup import BEST_NAME, QuestionSet
from train.tasks.step import initial_state, make_step, state_shapes
from train.tasks.table import TASKS

SWEEP_NAME = "sweep.jsonl"
CUT = ("cut_options", "lost_subtitle_tokens")
"""What readers count of texts that did not fit."""


def start(options: FinetuneOptions, changes: list[dict[str, Any]]) -> int:
    """Do the run, or one for each of the changes of a sweep; returns the exit status."""
    stop = hosts.Stop()
    keep_programs(options.workdir)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=not hosts.is_first())
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    silence_orbax()
    hosts.check_same(repr(dataclasses.replace(options, processes=Hosts())).encode())
    if options.sweep:
        return sweep(options, changes, stop, console)
    finetune(options, stop, console)
    return 0


def finetune(options: FinetuneOptions, stop: hosts.Stop, console: Console) -> dict[str, float] | None:
    """Train, evaluate every epoch, keep the best; the best line of evaluation, or None if stopped early."""
    task, config = TASKS[options.task], options.config
    mesh = make_mesh(config.mesh)
    check_batch(mesh, config.batch_size, config.microbatches)
    questions = setup.open_questions(options.data, config.train_split)
    if config.val_split is not None:
        setup.open_questions(options.data, config.val_split)
    reading = setup.spelled(config.input, options.data, questions.vocabulary)
    reading = setup.fitted(task, reading, options.data, config.train_split)
    reading = dataclasses.replace(reading, image_dtype=config.dtype)
    reader = _reader(options, task, reading)
    filesystem.make_folder(options.workdir)
    with filesystem.exclusive(filesystem.join(options.workdir, f".lock-{jax.process_index()}")):
        model, params = settle(options, task, reading, questions)
        per_epoch = max(reader.records // config.batch_size, 1)
        optimizer = config.optimizer(per_epoch)
        checkpoints = Checkpoints(filesystem.join(options.workdir, CHECKPOINTS_NAME), config.keep)
        restored = checkpoints.restore(state_shapes(task, model, optimizer), mesh)
        if restored is None:
            params = params or _starting_params(options, task, questions)[1]
            state = initial_state(params, optimizer, mesh)
            console.print(f"starting from {options.init}: {reader.records} questions, {per_epoch} steps an epoch")
        else:
            state = restored.state
            reader.restore(restored.reader)
            console.print(f"continuing from step {int(state.step)}")
        del params
        step = make_step(task, model, optimizer, mesh, config.microbatches)
        validation = dataclasses.replace(reading, training=False)
        evaluator = Evaluator(
            task, model, validation, mesh, config.batch_size, console, options.cache, options.reader_workers
        )
        if hosts.is_first():
            MetricsLog(filesystem.join(options.workdir, EVALUATIONS_NAME)).drop_after(int(state.step))
        hosts.wait_for_all("the evaluations are those of the restored step")
        trace = Trace(filesystem.join(options.workdir, PROFILE_NAME), options.profile)
        if int(state.step) < optimizer.total_steps:
            announce(console, "the training step")
        with Journal(
            options.workdir, int(state.step), optimizer.total_steps, console, config=dataclasses.asdict(config)
        ) as journal:
            for epoch in range(1, config.epochs + 1):
                rhythm = Rhythm(
                    epoch * per_epoch, config.batch_size, config.log_every, config.checkpoint_every, config.skip_limit
                )
                if int(state.step) > rhythm.steps:
                    continue
                state = run(step, rhythm, mesh, state, reader, checkpoints, options.workdir, stop, journal, trace=trace)
                if int(state.step) < rhythm.steps:
                    console.print(
                        f"stopped at step {int(state.step)} of {optimizer.total_steps}; the same command continues"
                    )
                    break
                if epoch == config.epochs:
                    check_trained(state)
                judge(options, task, evaluator, state, reader, questions.tokenizer, console)
        trace.close()
        reader.close()
        checkpoints.close()
        if int(state.step) < optimizer.total_steps:
            return None
        kept = filesystem.join(options.workdir, BEST_NAME)
        console.print(f"finished {int(state.step)} steps; the best weights are in {kept}")
        return _best_line(options, task)


def settle(
    options: FinetuneOptions, task: Task, reading: QuestionConfig, questions: QuestionSet
) -> tuple[ReserveConfig, dict | None]:
    """The model of a run, with the parameters to start from if it is new; stores or checks its configuration."""
    ours = {"task": task.name, "init": options.init, "tokenizer": questions.vocabulary.digest}
    ours |= options.config.numbers() | {"input": dataclasses.asdict(reading)}
    if is_run(options.workdir):
        stored = run_config.read_config(options.workdir)
        run_config.check_same(options.workdir, ours, stored, "choose another --workdir")
        return run_config.parsed(options.workdir, lambda values: setup.model_from(values["model"]), stored), None
    model, params = _starting_params(options, task, questions)
    if hosts.is_first():
        resolved = ours | {"model": dataclasses.asdict(model), "data": options.data}
        run_config.write_config(options.workdir, resolved)
    return model, params


def judge(
    options: FinetuneOptions,
    task: Task,
    evaluator: Evaluator,
    state: TrainState,
    reader: Reader,
    tokenizer: bytes | None,
    console: Console,
) -> None:
    """Evaluate after an epoch, write the line down, and keep the weights if none were better.

    The line also says how many options and subtitles of this process's training batches did not fit.
    """
    log = MetricsLog(filesystem.join(options.workdir, EVALUATIONS_NAME))
    step, split = int(state.step), options.config.val_split
    lines = log.lines()
    # All hosts have read the lines before the first one adds to them.
    if not hosts.all_agree(all(line["step"] != step for line in lines)):
        return
    seen = reader.metrics()
    line: dict[str, Any] = {"step": step} | {f"train/{name}": seen[name] for name in CUT if name in seen}
    if cut := {name: count for name, count in line.items() if name != "step" and count}:
        console.print(f"so far, in the batches of this process: {cut}; raise --input.text-length to cut less")
    if split is not None:
        found = accuracies(evaluator(state.params, options.data, split))
        line |= metrics(found)
        console.print(accuracy_table(f"step {step}, split {split}", found))
    best = max((_score(task, earlier) for earlier in lines), default=-1.0)
    if _score(task, line) > best or split is None:
        folder = filesystem.join(options.workdir, BEST_NAME)
        path = export_published(state, folder, tokenizer, evaluator.model)
        for other in filesystem.list_files(folder) if hosts.is_first() else ():
            if other != path and other.rpartition("/")[2].startswith("ckpt_"):
                filesystem.remove(other)
    if hosts.is_first():
        log.append(line)


def sweep(options: FinetuneOptions, combinations: list[dict[str, Any]], stop: hosts.Stop, console: Console) -> int:
    """Run every combination in a folder of its own, best first in a table; what is finished is not run again."""
    lines = []
    for changes in combinations:
        name = "-".join(f"{key}={value}" for key, value in changes.items())
        one = dataclasses.replace(
            options,
            sweep=(),
            workdir=filesystem.join(options.workdir, name),
            config=dataclasses.replace(options.config, **changes),
        )
        console.print(f"sweep: {name}")
        best = finetune(one, stop, console)
        if stop.asked:
            return 0
        lines.append({"run": name, **changes, **(best or {})})
    name = TASKS[options.task].best
    metric, chance, majority = f"val/{name}", f"val/chance/{name}", f"val/majority/{name}"
    lines.sort(key=lambda line: -line.get(metric, 0.0))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    filesystem.write_bytes(filesystem.join(options.workdir, SWEEP_NAME), text.encode())
    for line in lines:
        if metric not in line:
            console.print(f"{line['run']}: not evaluated")
            continue
        floors = f"chance {line[chance]:.4f}, most frequent answer {line[majority]:.4f}"
        console.print(f"{line['run']}: {metric} {line[metric]:.4f} at step {line['step']} ({floors})")
    return 0


def _reader(options: FinetuneOptions, task: Task, reading: QuestionConfig) -> Reader:
    config, hosts = options.config, jax.process_count()
    parser = task.parser(dataclasses.replace(reading, training=True))
    stream = StreamOptions(
        split=config.train_split,
        window=config.window,
        bad_records=config.bad_records,
        workers=options.reader_workers,
        cache=options.cache,
    )
    return Reader(
        options.data, parser, config.batch_size // hosts, config.seed, jax.process_index(), hosts, options=stream
    )


def _starting_params(options: FinetuneOptions, task: Task, questions: QuestionSet) -> tuple[ReserveConfig, dict]:
    config = options.config
    begun = setup.start(task, options.init, config.input.grid, config.dtype, questions.vocabulary, config.seed)
    return setup.with_layout(*begun, config.scan_layers, config.remat)


def _score(task: Task, line: dict[str, Any]) -> float:
    return line.get(f"val/{task.best}", 0.0)


def _best_line(options: FinetuneOptions, task: Task) -> dict[str, Any]:
    lines = MetricsLog(filesystem.join(options.workdir, EVALUATIONS_NAME)).lines()
    return max(lines, key=lambda line: _score(task, line), default={})
