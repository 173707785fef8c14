"""A finetuning run from its options: train, evaluate after every epoch, keep the best; and sweeps of such runs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax

from model.checkpoint_location import is_run
from model.config import ReserveConfig
from shards.reader import Reader, StreamOptions
from shards.records.question_config import QuestionConfig
from shards.storage import filesystem, stored_config
from train import loop, run_config
from train.checkpoint import export_published
from train.distributed import hosts
from train.distributed.processes import Hosts
from train.loop import LoopConfig
from train.mesh import check_batch, make_mesh
from train.metrics.figures import accuracy_table
from train.metrics.formatting import EVALUATIONS_NAME, MetricsLog
from train.options import FinetuneOptions
from train.run import Run
from train.state import TrainState
from train.tasks import Task, setup
from train.tasks.evaluation import Evaluator, accuracies, metrics
from train.tasks.setup import BEST_NAME, QuestionSet
from train.tasks.step import initial_state, make_step, state_shapes
from train.tasks.table import TASKS

SWEEP_NAME = "sweep.jsonl"
CUT = ("cut_options", "lost_subtitle_tokens")
"""What readers count of texts that did not fit."""


def start(options: FinetuneOptions, changes: list[dict[str, Any]]) -> int:
    """Train once, or once for each of the changes of a sweep; returns the exit status."""
    run = Run.start(options.workdir)
    run.check_same_options(dataclasses.replace(options, processes=Hosts()))
    if options.sweep:
        return sweep(run, options, changes)
    finetune(run, options)
    return 0


def finetune(run: Run, options: FinetuneOptions) -> dict[str, float] | None:
    """Train, evaluate every epoch and keep the best weights.

    Returns the best line of evaluation, None for a run that was stopped.
    """
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
    with run.locked():
        model, params = resolve(options, task, reading, questions)
        steps_per_epoch = max(reader.records // config.batch_size, 1)
        optimizer = config.optimizer(steps_per_epoch)
        checkpoints = run.checkpoints(config)
        restored = checkpoints.restore(state_shapes(task, model, optimizer), mesh)
        if restored is None:
            params = params or _initial_params(options, task, questions)[1]
            state = initial_state(params, optimizer, mesh)
            run.console.print(
                f"starting from {options.init}: {reader.records} questions, {steps_per_epoch} steps an epoch"
            )
        else:
            state = restored.state
            reader.restore(restored.reader)
            run.console.print(f"continuing from step {int(state.step)}")
        del params
        step_once = make_step(task, model, optimizer, mesh, config.microbatches)
        validation = dataclasses.replace(reading, training=False)
        evaluator = Evaluator(
            task, model, validation, mesh, config.batch_size, run.console, options.cache, options.reader_workers
        )
        if hosts.is_first():
            MetricsLog(filesystem.join(options.workdir, EVALUATIONS_NAME)).drop_after(int(state.step))
        hosts.wait_for_all("the evaluations are those of the restored step")
        total = optimizer.total_steps
        with run.hooks(int(state.step), total, options.profile, dataclasses.asdict(config)) as hooks:
            for epoch in range(1, config.epochs + 1):
                end = epoch * steps_per_epoch
                if int(state.step) > end:
                    continue
                state = loop.run(
                    *(step_once, LoopConfig.of(config, end), mesh, state, reader, checkpoints, options.workdir, hooks)
                )
                if int(state.step) < end:
                    run.report_stop(int(state.step), total)
                    break
                if epoch == config.epochs:
                    loop.check_trained(state)
                finish_epoch(run, options, task, evaluator, state, reader, questions.tokenizer)
        reader.close()
        checkpoints.close()
        if int(state.step) < total:
            return None
        best = filesystem.join(options.workdir, BEST_NAME)
        run.console.print(f"finished {int(state.step)} steps; the best weights are in {best}")
        return _best_line(options, task)


def resolve(
    options: FinetuneOptions, task: Task, reading: QuestionConfig, questions: QuestionSet
) -> tuple[ReserveConfig, dict | None]:
    """Return the model of a run, and for a new one its initial parameters; stores or checks the configuration."""
    requested = {"task": task.name, "init": options.init, "tokenizer": questions.vocabulary.digest}
    requested |= options.config.numbers() | {"input": dataclasses.asdict(reading)}
    if is_run(options.workdir):
        stored = run_config.read_config(options.workdir)
        stored_config.require_same(options.workdir, requested, stored, "choose another --workdir")
        return run_config.parsed(options.workdir, lambda values: setup.model_from(values["model"]), stored), None
    model, params = _initial_params(options, task, questions)
    if hosts.is_first():
        resolved = requested | {"model": dataclasses.asdict(model), "data": options.data}
        run_config.write_config(options.workdir, resolved)
    return model, params


def finish_epoch(
    run: Run,
    options: FinetuneOptions,
    task: Task,
    evaluator: Evaluator,
    state: TrainState,
    reader: Reader,
    tokenizer: bytes | None,
) -> None:
    """Evaluate after an epoch, write the metrics, and keep the weights if they are the best so far.

    The line also counts the options and subtitles of this process's training batches that did not fit.
    """
    log = MetricsLog(filesystem.join(options.workdir, EVALUATIONS_NAME))
    step, split = int(state.step), options.config.val_split
    lines = log.lines()
    # All hosts have read the lines before the first one adds to them.
    if not hosts.all_agree(all(line["step"] != step for line in lines)):
        return
    read = reader.metrics()
    line: dict[str, Any] = {"step": step} | {f"train/{name}": read[name] for name in CUT if name in read}
    if cut := {name: count for name, count in line.items() if name != "step" and count}:
        run.console.print(f"so far, in the batches of this process: {cut}; raise --input.text-length to cut less")
    if split is not None:
        results = accuracies(evaluator(state.params, options.data, split))
        line |= metrics(results)
        run.console.print(accuracy_table(f"step {step}, split {split}", results))
    best = max((_score(task, earlier) for earlier in lines), default=-1.0)
    if _score(task, line) > best or split is None:
        folder = filesystem.join(options.workdir, BEST_NAME)
        path = export_published(state, folder, tokenizer, evaluator.model)
        for other in filesystem.list_files(folder) if hosts.is_first() else ():
            if other != path and other.rpartition("/")[2].startswith("ckpt_"):
                filesystem.remove(other)
    if hosts.is_first():
        log.append(line)


def sweep(run: Run, options: FinetuneOptions, combinations: list[dict[str, Any]]) -> int:
    """Train with every combination in a folder of its own, and print a table, best first.

    Runs that have finished are not repeated.
    """
    lines = []
    for changes in combinations:
        name = "-".join(f"{key}={value}" for key, value in changes.items())
        one = run.in_folder(name)
        run.console.print(f"sweep: {name}")
        config = dataclasses.replace(options.config, **changes)
        best = finetune(one, dataclasses.replace(options, sweep=(), workdir=one.workdir, config=config))
        if run.stop.requested:
            return 0
        lines.append({"run": name, **changes, **(best or {})})
    name = TASKS[options.task].best
    metric, chance, majority = f"val/{name}", f"val/chance/{name}", f"val/majority/{name}"
    lines.sort(key=lambda line: -line.get(metric, 0.0))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    filesystem.write_bytes(filesystem.join(options.workdir, SWEEP_NAME), text.encode())
    for line in lines:
        if metric not in line:
            run.console.print(f"{line['run']}: not evaluated")
            continue
        floors = f"chance {line[chance]:.4f}, most frequent answer {line[majority]:.4f}"
        run.console.print(f"{line['run']}: {metric} {line[metric]:.4f} at step {line['step']} ({floors})")
    return 0


def _reader(options: FinetuneOptions, task: Task, reading: QuestionConfig) -> Reader:
    config, processes = options.config, jax.process_count()
    parser = task.parser(dataclasses.replace(reading, training=True))
    stream = StreamOptions(
        split=config.train_split,
        window=config.window,
        bad_records=config.bad_records,
        workers=options.reader_workers,
        cache=options.cache,
    )
    return Reader(
        options.data,
        parser,
        config.batch_size // processes,
        config.seed,
        jax.process_index(),
        processes,
        options=stream,
    )


def _initial_params(options: FinetuneOptions, task: Task, questions: QuestionSet) -> tuple[ReserveConfig, dict]:
    config = options.config
    started = setup.start(task, options.init, config.input.grid, config.dtype, questions.vocabulary, config.seed)
    return setup.with_layout(*started, config.scan_layers, config.remat)


def _score(task: Task, line: dict[str, Any]) -> float:
    return line.get(f"val/{task.best}", 0.0)


def _best_line(options: FinetuneOptions, task: Task) -> dict[str, Any]:
    lines = MetricsLog(filesystem.join(options.workdir, EVALUATIONS_NAME)).lines()
    return max(lines, key=lambda line: _score(task, line), default={})
