"""Run a pipeline to its end on any runner, or detect that it can never end.

Beam's local runner waits indefinitely for a worker process that was killed. Here the pipeline runs in a thread while
this process watches its workers; if one is gone and the pipeline does not end, the job is ended with all processes it
started. On Dataflow the job runs in the service, where the same command identifies it by its name.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from rich.console import Console

from pipelines.runner import command, dataflow_job, local_workers
from pipelines.runner.beam_flags import DATAFLOW
from pipelines.runner.dataflow_job import JobIdentity
from pipelines.runner.failure import failure_line
from shards.storage.errors import UserError

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_LOST = "a worker process died (killed, or out of memory); finished videos are kept, run the same command again"
_BEAM_LOST = "Channel closed prematurely"
"""Beam's message if it detects the lost worker first."""

_GRACE_SECONDS = 20.0
"""Seconds that a pipeline may take to end after one of its workers ended."""


class WorkerLostError(UserError):
    """A worker process died while the pipeline still needed it."""


def prepare_workers(options: PipelineOptions) -> None:
    """Start the server that local worker processes are forked from, if the options request worker processes.

    A command calls this before it starts a thread or acquires a lock.
    """
    if _uses_processes(options):
        local_workers.start_server(fork=command.owns_process())


def _uses_processes(options: PipelineOptions) -> bool:
    direct = options.view_as(DirectOptions)
    return options.view_as(StandardOptions).runner == "FnApiRunner" and direct.direct_running_mode == "multi_processing"


def _on_dataflow(options: PipelineOptions) -> bool:
    return options.view_as(StandardOptions).runner == DATAFLOW


def new_pipeline(options: PipelineOptions, log: str, job: JobIdentity | None = None) -> beam.Pipeline:
    """Return a pipeline with these options, which are not modified.

    Local worker processes are forks that end with this process and write their output to `log`. On Dataflow the job is
    named after `job` unless `options` name it.
    """
    requested = options.get_all_options(drop_default=True)
    if _on_dataflow(options):
        # Beam writes a folder for each job into these options, which a second pipeline must not inherit.
        name = {"job_name": options.view_as(GoogleCloudOptions).job_name or job.name} if job else {}
        return beam.Pipeline(options=PipelineOptions(flags=[], **(requested | name)))
    if not _uses_processes(options):
        return beam.Pipeline(options=options)
    # With any other mode the runner would replace the default environment by its own.
    local = PipelineOptions(flags=[], **requested | {"direct_running_mode": "in_memory"})
    return beam.Pipeline(runner=FnApiRunner(default_environment=local_workers.ForkedWorkers(log)), options=local)


def run_to_end(pipeline: beam.Pipeline, tick: Callable[[], None], console: Console | None = None) -> bool:
    """Run the pipeline, calling `tick` twice a second. Raises `UserError` if it fails or loses a worker.

    Returns whether the pipeline ran: with `--template_location` its graph is only written there, for a later launch.
    Messages about a job on Dataflow are printed to `console`, by default on stderr.
    """
    if not _on_dataflow(pipeline.options):
        _run_locally(pipeline, tick)
        return True
    console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if template := pipeline.options.view_as(GoogleCloudOptions).template_location:
        pipeline.run()
        console.print(f"the job's graph was written to {template}")
        return False
    dataflow_job.run_to_end(pipeline, tick, console.print)
    return True


def _run_locally(pipeline: beam.Pipeline, tick: Callable[[], None]) -> None:
    """Run the pipeline while this process watches its workers."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            pipeline.run().wait_until_finish()
        # Every exception of the runner must reach the caller's thread.
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    # Beam's threads for a dead worker would print tracebacks; the error below is enough.
    threading.excepthook = lambda raised: _LOG.error("in thread %s: %s", raised.thread, raised.exc_value)
    thread = threading.Thread(target=run, name="pipeline", daemon=True)
    thread.start()
    earlier, lost_at = len(local_workers.STARTED), None
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        tick()
        if lost_at is None and any(not _is_alive(process) for process in local_workers.STARTED[earlier:]):
            lost_at = time.monotonic()
        if lost_at is not None and thread.is_alive() and time.monotonic() - lost_at > _GRACE_SECONDS:
            _end_children()
            raise WorkerLostError(_LOST)
    if failures:
        _end_children()
        raise _as_user_error(failures[0]) from failures[0]


def _is_alive(process: psutil.Process) -> bool:
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
    """Return the failure as a `UserError`; an exception raised inside a worker arrives as text."""
    line = failure_line(str(error) or type(error).__name__)
    return WorkerLostError(_LOST) if _BEAM_LOST in line else UserError(f"the job failed: {line}")
