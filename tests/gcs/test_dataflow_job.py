"""A job on Dataflow is one job, whatever happens to the terminals that follow it."""

import re
import signal
import time

import pytest
from test_dataflow import flags

from pipelines.runner.dataflow_job import JobIdentity
from shards.storage import filesystem


@pytest.fixture
def dataflow(tmp_path, bucket, run):
    from fake_dataflow import FakeDataflow

    service = FakeDataflow(tmp_path, run)
    yield service
    service.start.set()
    service.end()


@pytest.fixture
def begin(dataflow, bucket, run):
    """Type the command of the small job in a new terminal."""

    def start(name="file", *more):
        return run.start("tests.gcs.small_job", f"{bucket}/{name}", *flags(dataflow, bucket, *more))

    return start


def wait_for(terminal, text):
    """Wait until a command has printed a text."""
    terminal.wait_until(lambda: text in terminal.read("err"))


def test_a_name_depends_on_the_job_alone_and_keeps_the_rules():
    job = JobIdentity("Train" * 10, ("gs://b/data", "gs://b/ids.csv", "None"))
    assert job.name == JobIdentity("Train" * 10, ("gs://b/data", "gs://b/ids.csv", "None")).name
    assert re.fullmatch("reservoir-train[a-z]{15}-[0-9a-f]{12}", job.name)
    others = [("gs://b/data", "gs://b/ids.csv"), ("gs://b/datags://b/ids.csv", "None"), ("gs://b/data2", "", "None")]
    assert len({job.name, *(JobIdentity("train", parts).name for parts in others)}) == 4


def test_the_id_and_the_ways_to_watch_and_cancel_are_printed(dataflow, begin, bucket):
    ran = begin().wait()
    assert ran.status == 0, ran.err
    assert ran.out == "ended: True\n"
    assert filesystem.read_bytes(f"{bucket}/file") == b"written"
    name = dataflow.jobs[0]["name"]
    assert name == JobIdentity("Train", (f"{bucket}/file",)).name
    assert f"job job-0 ({name}) was submitted; it continues if this terminal is closed" in ran.err
    assert "https://console.cloud.google.com/dataflow/jobs/us-central1/job-0?project=p" in ran.err
    assert "gcloud dataflow jobs show job-0 --region=us-central1 --project=p" in ran.err
    assert "gcloud dataflow jobs cancel job-0 --region=us-central1 --project=p" in ran.err
    # A job that has ended is in nobody's way.
    assert begin().wait().status == 0
    assert [job["name"] for job in dataflow.jobs] == [name, name]


def test_a_command_typed_again_follows_the_job_that_is_active(dataflow, begin, bucket):
    dataflow.start.clear()
    first = begin()
    wait_for(first, "was submitted")
    first.kill()
    second, third, other = begin(), begin(), begin("another-file")
    for terminal in (second, third):
        wait_for(terminal, "following it instead")
        assert "job-0" in terminal.read("err")
    wait_for(other, "was submitted")
    assert not filesystem.exists(f"{bucket}/file")
    dataflow.start.set()
    for terminal in (second, third, other):
        ran = terminal.wait()
        assert ran.status == 0, ran.err
    assert len(dataflow.jobs) == 2
    assert filesystem.read_bytes(f"{bucket}/file") == b"written"


def test_two_terminals_at_once_start_one_job(dataflow, begin):
    dataflow.start.clear()
    first = begin()
    wait_for(first, "was submitted")
    # The second looks for the job before it is listed, so it is the service that refuses it.
    dataflow.lists = False
    second = begin()
    wait_for(second, "following it instead")
    dataflow.start.set()
    assert first.wait().status == 0
    ran = second.wait()
    assert ran.status == 0, ran.err
    assert len(dataflow.jobs) == 1


def test_an_interrupted_terminal_leaves_the_job_running(dataflow, begin):
    dataflow.start.clear()
    terminal = begin()
    wait_for(terminal, "cancel:")
    time.sleep(0.5)
    terminal.send_signal(signal.SIGINT)
    ran = terminal.wait()
    assert ran.status == 130
    assert "job job-0 continues in the cloud; the same command follows it again" in ran.err
    assert ran.err.count("gcloud dataflow jobs cancel job-0") == 2
    assert "Traceback" not in ran.err
    assert dataflow.states == ["JOB_STATE_PENDING"]


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ("JOB_STATE_FAILED", "error: job job-0 failed: cannot write 'gs://b/x'"),
        ("JOB_STATE_CANCELLED", "error: job job-0 was cancelled"),
    ],
)
def test_a_job_that_does_not_finish_says_why(dataflow, begin, state, complaint):
    dataflow.start.clear()
    trace = "Traceback (most recent call last):\n  File x\nshards.errors.StorageError: cannot write 'gs://b/x'\n"
    dataflow.messages = [trace, "Workflow failed. Causes: a work item was attempted 4 times"]
    terminal = begin()
    wait_for(terminal, "was submitted")
    dataflow.states[0] = state
    ran = terminal.wait()
    assert ran.status == 1
    assert ran.err.splitlines()[-1] == complaint


def test_a_name_of_the_users_own_is_kept(dataflow, begin):
    ran = begin("file", "--job_name=mine").wait()
    assert ran.status == 0, ran.err
    assert [job["name"] for job in dataflow.jobs] == ["mine"]


def test_a_template_is_written_and_not_started(dataflow, begin, bucket):
    ran = begin("file", f"--template_location={bucket}/template/job").wait()
    assert ran.status == 0, ran.err
    assert ran.out == "ended: False\n"
    assert f"the job's graph was written to {bucket}/template/job" in ran.err
    assert filesystem.exists(f"{bucket}/template/job")
    assert not dataflow.jobs
