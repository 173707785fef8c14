"""The job on Dataflow: what is posted, and that the staged graphs make the same shards as a local run."""

import pytest
from data_folders import content
from emulator import SHORT_LEASES, upload
from fake_dataflow import FakeDataflow

IMAGE = "images.example/reservoir/worker:1"


@pytest.fixture
def dataflow(tmp_path, bucket, run):
    service = FakeDataflow(tmp_path, run)
    yield service
    service.start.set()
    service.end()


def flags(service, bucket, *more):
    return [
        "--runner=DataflowRunner",
        "--project=p",
        "--region=us-central1",
        f"--temp_location={bucket}/tmp",
        f"--dataflow_endpoint={service.address}",
        "--no_auth",
        f"--sdk_container_image={IMAGE}",
        *more,
    ]


def test_the_staged_graph_makes_the_same_shards(dataflow, bucket, run, corpus, settings, undisturbed):
    upload(corpus / "train", f"{bucket}/videos")
    out = f"{bucket}/data"
    more = flags(dataflow, bucket, "--machine_type=n2-standard-4", "--max_num_workers=7")
    ran = run.preprocess("--videos", f"{bucket}/videos", "--out", out, *settings, *more)
    assert ran.status == 0, ran.err
    assert content(out) == content(undisturbed), dataflow.said
    (job,) = dataflow.jobs
    pool = job["environment"]["workerPools"][0]
    assert pool["sdkHarnessContainerImages"][0]["containerImage"] == IMAGE
    assert pool["machineType"] == "n2-standard-4"
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 7


@pytest.mark.timeout(400)
def test_a_killed_command_typed_again_continues_its_job(dataflow, bucket, run, corpus, settings, undisturbed):
    upload(corpus / "train", f"{bucket}/videos")
    out = f"{bucket}/data"

    def begin():
        arguments = ("--videos", f"{bucket}/videos", "--out", out, *settings, *flags(dataflow, bucket))
        return run.start("pipelines.preprocess", *arguments, before=SHORT_LEASES)

    dataflow.start.clear()
    first = begin()
    first.wait_until(lambda: dataflow.jobs)
    first.kill()
    second = begin()
    second.wait_until(lambda: "following it instead" in second.read("err"))
    dataflow.start.set()
    ran = second.wait(300)
    assert ran.status == 0, ran.err
    names = [job["name"] for job in dataflow.jobs]
    assert len(set(names)) == len(names), "no job was started twice"
    assert content(out) == content(undisturbed), dataflow.said


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"out": "local-folder"}, "needs --out in a bucket"),
        ({"videos": "corpus"}, "needs --videos in a bucket"),
    ],
)
def test_a_job_that_workers_elsewhere_cannot_do_is_refused(
    dataflow, bucket, run, corpus, settings, tmp_path, change, complaint
):
    out = tmp_path / "data" if "out" in change else f"{bucket}/data"
    videos = corpus / "train" if "videos" in change else f"{bucket}/videos"
    upload(corpus / "train", f"{bucket}/videos")
    ran = run.preprocess("--videos", videos, "--out", out, *settings, *flags(dataflow, bucket))
    assert ran.status == 2, ran.err
    assert complaint in ran.err
    assert not dataflow.jobs
