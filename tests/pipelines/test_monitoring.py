"""What can be seen of a job: the runner's counters and distributions agree with the ledger, and a status says how to go on."""

import json
import shlex
import shutil
import time
from collections import Counter

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.preprocessing import graph, status_report
from pipelines.preprocessing.job_config import commit_config
from pipelines.preprocessing.options import parse
from pipelines.runner.metering import JOB, MILLISECONDS, OUTCOME
from shards.dataset import manifest
from shards.dataset.ledger import Entry, Ledger
from shards.dataset.manifest import Generation, Manifest, generation_stats_path
from shards.dataset.sums import Sums
from shards.dataset.video_store import VideoStore, VideoTable
from shards.records.segments import VideoText
from shards.storage import filesystem


def counters(found, namespace):
    return {c.key.metric.name: c.committed for c in found["counters"] if c.key.metric.namespace == namespace}


def test_every_outcome_is_counted_and_every_stage_timed(corpus, quick, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    media = sorted((corpus / "train").glob("*.mp4"))[:3]
    for path in media:
        shutil.copy(path, videos)
    for path in sorted((corpus / "train").glob(f"{media[0].stem}.*")):
        shutil.copy(path, videos)
    for path in sorted((corpus / "train").glob(f"{media[1].stem}.*")):
        shutil.copy(path, videos)
    (videos / media[1].name).write_bytes(b"no video")
    out = str(tmp_path / "out")
    options = parse(["--videos", str(videos), "--out", out, *quick])[0]
    (tmp_path / "out").mkdir()

    pipeline = beam.Pipeline(runner=FnApiRunner())
    graph.build(pipeline, options, commit_config(options))
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query()

    entries = Ledger(out).entries().values()
    assert counters(found, OUTCOME) == Counter(entry.outcome for entry in entries)
    assert len({entry.outcome for entry in entries}) == 3
    committed = manifest.load(out)
    made = {
        "segments": sum(entry.segments for entry in entries),
        "examples": sum(shard.examples for shard in committed.shards()),
        "generations": 1,
    }
    assert counters(found, JOB) == made
    times = {d.key.metric.name: d.committed for d in found["distributions"] if d.key.metric.namespace == MILLISECONDS}
    one_each = {"fetch": 3, "extract": 3, "extract-cpu": 3, "commit": 3, "commit-generation": 1}
    assert {name: spread.count for name, spread in times.items()} == one_each | {"write-shard": len(committed.shards())}
    assert times["extract"].sum >= times["extract-cpu"].sum / 4 > 0
    ledger_seconds = sum(entry.cpu_seconds for entry in entries)
    assert abs(times["extract-cpu"].sum - 1000 * ledger_seconds) <= 3


def folder_with(data, *entries):
    """A data folder whose one generation has these entries."""
    generation = Generation(0, "train", sum(entry.kind == "done" for entry in entries), 0, [], ledger=1)
    filesystem.write_bytes(generation_stats_path(str(data), generation), Sums.of_items(entries).to_json().encode())
    manifest.save(str(data), Manifest(4, "config", "tokenizer", [generation]))


def test_status_names_failures_and_the_retry_command(run, tmp_path):
    data = tmp_path / "my data"
    command = ["--videos", "v", "--out", str(data), "--retry-failed", "--yt-dlp", "--proxy http://me:secret@there"]
    status_report.note_start(str(data), command)
    failed = [Entry(f"video{number}", "network", "failed-retryable") for number in range(5)]
    folder_with(data, *failed, *(Entry(f"video{number}", "extracted", "done") for number in range(5, 8)))
    VideoStore(str(data)).commit(VideoTable(VideoText("waiting"), "config", "extracted", "done"), [])
    found = status_report.report(str(data), now=time.time() + 3600)
    assert (found.finished, found.in_store) == (8, 1)
    assert found.hours == pytest.approx(1, abs=0.1)
    assert {(r.outcome, r.videos, len(r.samples)) for r in found.reasons} == {("network", 5, 3), ("extracted", 3, 3)}
    words = shlex.split(found.retry)
    assert words == [
        "python",
        "-m",
        "pipelines.preprocess",
        "--videos",
        "v",
        "--out",
        str(data),
        "--yt-dlp=...",
        "--retry-failed",
    ]
    assert "secret" not in (data / status_report.NOTE).read_text()
    shown = run("pipelines.status", data)
    assert found.retry in shown.out
    assert json.loads(run("pipelines.status", data, "--json").out)["retry"] == found.retry
    assert status_report.retry_command(["--yt_dlp=--username me", "--limit", "2"]).split()[3:] == [
        "--yt-dlp=...",
        "--limit",
        "2",
        "--retry-failed",
    ]


def test_a_job_that_failed_nowhere_says_nothing_of_retries(tmp_path):
    status_report.note_start(str(tmp_path), ["--videos", "v"])
    folder_with(tmp_path, Entry("video", "extracted", "done"))
    assert status_report.report(str(tmp_path), now=2e9).retry is None
