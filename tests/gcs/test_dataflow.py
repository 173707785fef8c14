"""The job on Dataflow: what is posted, and that the staged graphs make the same shards as a local run."""

import subprocess

import pytest
from fake_dataflow import FakeDataflow
from test_gcs_job import ROOT, command, content, corpus, finish, local, upload

__all__ = ["corpus", "local"]

IMAGE = "images.example/reservoir/worker:1"


@pytest.fixture
def dataflow(tmp_path, bucket):
    service = FakeDataflow(tmp_path, ROOT)
    yield service
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


def test_the_staged_graphs_make_the_same_shards(dataflow, bucket, corpus, local):
    upload(corpus / "train", f"{bucket}/videos")
    out = f"{bucket}/data"
    arguments = command(f"{bucket}/videos", out, corpus / "tokenizer.json")
    arguments.remove("--direct_num_workers=2")
    finish([*arguments, *flags(dataflow, bucket, "--machine_type=n2-standard-4", "--max_num_workers=7")])
    assert content(out) == content(local), dataflow.said
    extraction, assembly = dataflow.jobs
    for job in (extraction, assembly):
        pool = job["environment"]["workerPools"][0]
        assert pool["sdkHarnessContainerImages"][0]["containerImage"] == IMAGE
        assert pool["machineType"] == "n2-standard-4"
        assert pool["autoscalingSettings"]["maxNumWorkers"] == 7


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"out": "local-folder"}, "needs --out in a bucket"),
        ({"videos": "corpus"}, "needs --videos in a bucket"),
    ],
)
def test_a_job_that_workers_elsewhere_cannot_do_is_refused(dataflow, bucket, corpus, tmp_path, change, complaint):
    out = tmp_path / "data" if "out" in change else f"{bucket}/data"
    videos = corpus / "train" if "videos" in change else f"{bucket}/videos"
    upload(corpus / "train", f"{bucket}/videos")
    arguments = [*command(videos, out, corpus / "tokenizer.json"), *flags(dataflow, bucket)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=100, cwd=ROOT, check=False)
    assert ended.returncode == 2, ended.stderr
    assert complaint in ended.stderr
    assert not dataflow.jobs
