"""Workers on Dataflow download with cookies that only they read, and leave what a bot check stopped to the next run."""

import json
import os

import pytest
import youtube_server
from fake_dataflow import FakeDataflow
from test_dataflow import flags

from shards.dataset.ledger import Ledger
from shards.storage import filesystem

IDS = [f"video{i:06d}" for i in range(4)]
COOKIES = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tSID\tabc-123\n"
YT_DLP = "--retries 0 --retry-sleep 0 --extractor-retries 0 --socket-timeout 5"


@pytest.fixture
def site(corpus):
    with youtube_server.serve(youtube_server.Site.of_folder(corpus / "train")) as served:
        yield served


@pytest.fixture
def job(site, bucket, run, settings, tmp_path, monkeypatch):
    """Run the job over the ids; the service that ran it, and how the command ended."""
    monkeypatch.setenv("RESERVOIR_TEST_YOUTUBE", site.address)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(youtube_server.PLUGIN)]))
    monkeypatch.setenv("RESERVOIR_CACHE", str(tmp_path / "machine"))
    filesystem.write_bytes(f"{bucket}/ids", "\n".join(IDS).encode())
    filesystem.write_bytes(f"{bucket}/cookies.txt", COOKIES.encode())
    service = FakeDataflow(tmp_path, run)

    def start(*more):
        arguments = ("--ids", f"{bucket}/ids", "--out", f"{bucket}/data", "--cookies", f"{bucket}/cookies.txt")
        ran = run.preprocess(*arguments, f"--yt-dlp={YT_DLP}", *settings, *more, *flags(service, bucket))
        return service, ran

    yield start
    service.end()


@pytest.mark.timeout(400)
def test_a_bot_check_leaves_videos_to_the_next_run(site, job, bucket, tmp_path):
    site.faults = dict.fromkeys(IDS, "text:Sign in to confirm you're not a bot")
    service, ran = job()
    assert ran.status == 1, ran.err
    assert "3 videos were not tried" in ran.err
    assert [entry.outcome for entry in Ledger(f"{bucket}/data").entries().values()] == ["bot-check"]
    assert sum(path.startswith("info/") for path in site.hits) == 1

    site.faults = {}
    _, ran = job("--retry-failed")
    assert ran.status == 0, (ran.err, service.said)
    assert {entry.outcome for entry in Ledger(f"{bucket}/data").entries().values()} == {"extracted"}
    assert set(site.cookies) == {"SID=abc-123"}
    graphs = [path.read_bytes() for path in tmp_path.glob("job-*.pb")]
    assert len(graphs) == len(service.jobs) > 1
    assert b"abc-123" not in b"".join(graphs) + json.dumps(service.jobs).encode()
