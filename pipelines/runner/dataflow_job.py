"""Submit a job to Dataflow under a stable name and follow it from any terminal.

The name depends only on what the job does, so the same command finds its running job. The terminal only follows the
job, which continues when the terminal is closed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.runner.failure import failure_line
from shards.storage.errors import UserError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

_POLL_SECONDS = 3.0
_TICK_SECONDS = 0.5
_MESSAGE_SECONDS = 50.0
"""Seconds to wait for the reason of a failure, which Dataflow publishes about 30 seconds after the failure."""

_DONE = "JOB_STATE_DONE"
_ENDED = {
    _DONE: "finished",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_CANCELLED": "was cancelled",
    "JOB_STATE_DRAINED": "was drained",
    "JOB_STATE_UPDATED": "was replaced by an update",
    "JOB_STATE_STOPPED": "was stopped",
}
"""Terminal states of a job, and their descriptions."""

_SPLIT_LETTERS = 20


@dataclass(frozen=True)
class JobIdentity:
    """The identity of a job, equal for repeated runs of the same command: its split, and its inputs and outputs."""

    split: str
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The job's name: lower-case letters, digits and dashes, as Dataflow requires."""
        digest = hashlib.sha256("\0".join((self.split, *self.parts)).encode()).hexdigest()[:12]
        return f"reservoir-{self.split.lower()[:_SPLIT_LETTERS]}-{digest}"


@dataclass(frozen=True)
class RunningJob:
    """A job of the service, with the commands that watch and cancel it."""

    id: str
    name: str
    project: str
    region: str

    @property
    def watch(self) -> str:
        """The address of the job's page, and the command that shows the job."""
        page = f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{self.id}?project={self.project}"
        return f"  watch:  {page}\n          {self._command('show')}"

    @property
    def cancel(self) -> str:
        """The command that cancels the job."""
        return f"  cancel: {self._command('cancel')}"

    def _command(self, verb: str) -> str:
        return f"gcloud dataflow jobs {verb} {self.id} --region={self.region} --project={self.project}"


class Service:
    """A client of Dataflow for the project and region of some pipeline options."""

    def __init__(self, options: PipelineOptions):
        from apache_beam.options.pipeline_options import GoogleCloudOptions
        from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient

        cloud = options.view_as(GoogleCloudOptions)
        self._project, self._region = str(cloud.project), str(cloud.region)
        self._client = DataflowApplicationClient(options)

    def active_job(self, name: str) -> RunningJob | None:
        """Return the job of this name that has not ended, or `None`."""
        from google.cloud import dataflow

        request = dataflow.ListJobsRequest(
            project_id=self._project, location=self._region, filter=dataflow.ListJobsRequest.Filter.ACTIVE
        )
        # Beam's own search by name covers running jobs only, and never returns if there is none.
        for job in self._client._jobs_client.list_jobs(request=request):
            if job.name == name and job.current_state.name not in _ENDED:
                return self.job(job.id, name)
        return None

    def job(self, job_id: str, name: str) -> RunningJob:
        """Return the job of this project and region with an id."""
        return RunningJob(job_id, name, self._project, self._region)

    def state(self, job: RunningJob) -> str:
        """Return the state of a job, as the service names it."""
        return self._client.get_job(job.id).current_state.name

    def failure(self, job: RunningJob) -> str:
        """Return why a job failed: the traceback of its code if there is one, else the last error of the service."""
        deadline = time.monotonic() + _MESSAGE_SECONDS
        while True:
            errors, token = [], None
            while token != "":
                messages, token = self._client.list_messages(
                    job.id, page_token=token or None, minimum_importance="JOB_MESSAGE_ERROR"
                )
                errors += [message.message_text for message in messages]
            if errors or time.monotonic() > deadline:
                break
            time.sleep(1)
        tracebacks = [text for text in errors if "Traceback" in text]
        return failure_line((tracebacks or errors or ["the service gives no reason"])[-1])


def run_to_end(pipeline: beam.Pipeline, tick: Callable[[], None], report: Callable[[str], None]) -> None:
    """Start the pipeline, unless a job of its name is active, and follow it to its end.

    Raises `UserError` if the job does not finish. Reraises `KeyboardInterrupt`, after which the job continues.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        _run(pipeline, tick, report)
    except (GoogleAPIError, GoogleAuthError) as error:
        raise UserError(f"Dataflow refused the request: {failure_line(str(error))}") from error


def _run(pipeline: beam.Pipeline, tick: Callable[[], None], report: Callable[[str], None]) -> None:
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    service, name = Service(pipeline.options), pipeline.options.view_as(GoogleCloudOptions).job_name
    job = service.active_job(name) if name else None
    if job is None:
        job = _submit(pipeline, service, name, report)
    else:
        report(_following(job))
    report(f"{job.watch}\n{job.cancel}")
    try:
        state = _last_state(service, job, tick)
    except KeyboardInterrupt:
        report(f"job {job.id} continues in the cloud; the same command follows it again\n{job.watch}\n{job.cancel}")
        raise
    if state != _DONE:
        reason = f": {service.failure(job)}" if state == "JOB_STATE_FAILED" else ""
        raise UserError(f"job {job.id} {_ENDED[state]}{reason}")


def _submit(pipeline: beam.Pipeline, service: Service, name: str | None, report: Callable[[str], None]) -> RunningJob:
    """Return the job of this pipeline: a new one, or the one that another terminal started in the meantime."""
    from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
    from google.api_core.exceptions import Conflict

    try:
        # The result of Dataflow's runner, which has these two attributes.
        submitted: Any = pipeline.run()
    except (Conflict, DataflowJobAlreadyExistsError):
        job = service.active_job(name) if name else None
        if job is None:
            raise UserError(f"a job {name!r} ended just now; run the same command again") from None
        report(_following(job))
        return job
    job = service.job(submitted.job_id(), submitted._job.name)
    report(f"job {job.id} ({job.name}) was submitted; it continues if this terminal is closed")
    return job


def _following(job: RunningJob) -> str:
    return f"job {job.id} ({job.name}) is already active; following it instead of starting another"


def _last_state(service: Service, job: RunningJob, tick: Callable[[], None]) -> str:
    """Wait for the end of a job and return its state."""
    while True:
        state = service.state(job)
        tick()
        if state in _ENDED:
            return state
        until = time.monotonic() + _POLL_SECONDS
        while time.monotonic() < until:
            time.sleep(_TICK_SECONDS)
            tick()
