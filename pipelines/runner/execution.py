"""Run a pipeline to its end on any runner, or detect that it will never end.

Beam's local runner waits for ever for a worker process that was killed. Here the pipeline runs in a thread while this
process watches its workers; when one is gone and the pipeline does not end, the job ends, with everything it started.
On Dataflow the job is not this process's: the same command identifies it by its name, and goes on without a terminal.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from rich.console import Console

from pipelines.runner import command, dataflow_job
from pipelines.runner import local_workers as worker
from pipelines.runner.beam_flags import DATAFLOW
from pipelines.runner.dataflow_job import JobIdentity
from pipelines.runner.failure import failure_line
from shards.storage.errors import UserError

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_LOST = "a worker process died (killed, or out of memory); what it finished is kept, run the same command again"
_BEAM_LOST = "Channel closed prematurely"
"""What Beam says if it notices first."""

_GRACE_SECONDS = 20.0
"""How long a pipeline may take to end after its workers did."""


class WorkerLostError(UserError):
    """A worker process died while the pipeline still needed it."""


def prepare_workers(options: PipelineOptions) -> None:
    """Start what local worker processes are forked from, if these options ask for any.

    A command calls this before it starts a thread or takes a lock.
    """
    if _uses_processes(options):
        worker.start_server(fork=command.owns_process())


def _uses_processes(options: PipelineOptions) -> bool:
    direct = options.view_as(DirectOptions)
    return options.view_as(StandardOptions).runner == "FnApiRunner" and direct.direct_running_mode == "multi_processing"


def _on_dataflow(options: PipelineOptions) -> bool:
    return options.view_as(StandardOptions).runner == DATAFLOW


def new_pipeline(options: PipelineOptions, log: str, job: JobIdentity | None = None) -> beam.Pipeline:
    """A pipeline for these options.

    Local worker processes are ours, which end with this one and write to `log`. On Dataflow the job is named after
    `job` unless `options` name it. The caller's options stay as they are.
    """
    given = options.get_all_options(drop_default=True)
    if _on_dataflow(options):
        # Beam writes a folder for each job into these options, which a second pipeline must not inherit.
        named = {"job_name": options.view_as(GoogleCloudOptions).job_name or job.name} if job else {}
        return beam.Pipeline(options=PipelineOptions(flags=[], **(given | named)))
    if not _uses_processes(options):
        return beam.Pipeline(options=options)
    # Told to use processes, the runner would put its own worker in the place of ours.
    here = PipelineOptions(flags=[], **given | {"direct_running_mode": "in_memory"})
    return beam.Pipeline(runner=FnApiRunner(default_environment=worker.ForkedWorkers(log)), options=here)


def run_to_end(pipeline: beam.Pipeline, tick: Callable[[], None], console: Console | None = None) -> bool:
    """Run the pipeline, calling `tick` twice a second. Raises `UserError` if it fails or loses a worker.

    Returns whether it ended: with `--template_location` its graph is only written there, for a later launch. What
    there is to say about a job on Dataflow goes to `console`, by default on stderr.
    """
    if not _on_dataflow(pipeline.options):
        _run_here(pipeline, tick)
        return True
    console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if template := pipeline.options.view_as(GoogleCloudOptions).template_location:
        pipeline.run()
        console.print(f"the job's graph is {template}")
        return False
    dataflow_job.run_to_end(pipeline, tick, console.print)
    return True


def _run_here(pipeline: beam.Pipeline, tick: Callable[[], None]) -> None:
    """Run the pipeline while this process watches its workers."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            pipeline.run().wait_until_finish()
        # Whatever the runner raises must reach the caller's thread.
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    # A dead worker's thread would print its traceback; what matters of it is said below.
    threading.excepthook = lambda raised: _LOG.error("in thread %s: %s", raised.thread, raised.exc_value)
    thread = threading.Thread(target=run, name="pipeline", daemon=True)
    thread.start()
    before, lost_at = len(worker.STARTED), None
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        tick()
        if lost_at is None and any(not _alive(process) for process in worker.STARTED[before:]):
            lost_at = time.monotonic()
        if lost_at is not None and thread.is_alive() and time.monotonic() - lost_at > _GRACE_SECONDS:
            _end_children()
            raise WorkerLostError(_LOST)
    if failures:
        _end_children()
        raise _as_user_error(failures[0]) from failures[0]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end_children() -> None:
    children = psutil.Process().children(recursive=True)
    for child in children:
        try:
            child.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(children, timeout=5)


def _as_user_error(error: BaseException) -> UserError:
    """The sentence of a `UserError` raised inside a worker, which arrives as text, or of whatever else it was."""
    said = failure_line(str(error) or type(error).__name__)
    return WorkerLostError(_LOST) if _BEAM_LOST in said else UserError(f"the job failed: {said}")
