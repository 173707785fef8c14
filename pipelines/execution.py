"""Run a pipeline to its end, or find out that it will never end.

Beam's local runner waits for ever for a worker process that was killed. Here the pipeline runs in a thread while this
process watches its workers; when one is gone and the pipeline does not end, the job ends, with everything it started.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import apache_beam as beam
import psutil
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines import command, worker
from shards.errors import UserError

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


def new_pipeline(options: PipelineOptions, log: str) -> beam.Pipeline:
    """A pipeline for these options; local worker processes are ours, which end with this one and write to `log`."""
    if not _uses_processes(options):
        return beam.Pipeline(options=options)
    # Told to use processes, the runner would put its own worker in the place of ours. The caller's options stay.
    given = options.get_all_options(drop_default=True) | {"direct_running_mode": "in_memory"}
    runner = FnApiRunner(default_environment=worker.ForkedWorkers(log))
    return beam.Pipeline(runner=runner, options=PipelineOptions(flags=[], **given))


def run_to_end(pipeline: beam.Pipeline, tick: Callable[[], None]) -> None:
    """Run the pipeline, calling `tick` twice a second. Raises `UserError` if it fails or loses a worker."""
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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "Error: " in line), lines[-1] if lines else type(error).__name__)
    if _BEAM_LOST in said:
        return WorkerLostError(_LOST)
    return UserError(f"the job failed: {said.split('Error: ', 1)[-1][:500]}")
