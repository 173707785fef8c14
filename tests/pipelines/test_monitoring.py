"""What can be seen of a job: the runner's counters and distributions agree with the ledger, and a status says how to go on."""

import json
import shlex
import shutil
from collections import Counter

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines import status
from pipelines.folder import settle_config
from pipelines.intake import committed
from pipelines.items import list_items
from pipelines.launch import assembled
from pipelines.metering import JOB, MILLISECONDS, OUTCOME
from pipelines.options import parse
from shards import manifest
from shards.ledger import Entry, Ledger


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
    config = settle_config(options)

    pipeline = beam.Pipeline(runner=FnApiRunner())
    ended = committed(pipeline, list_items(options), options, config)
    assembled(pipeline, ended, options, config)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query()

    entries = Ledger(out).entries().values()
    assert counters(found, OUTCOME) == Counter(entry.outcome for entry in entries)
    assert len({entry.outcome for entry in entries}) == 3
    held = manifest.load(out)
    made = {
        "segments": sum(entry.segments for entry in entries),
        "examples": sum(shard.examples for shard in held.shards()),
        "generations": 1,
    }
    assert counters(found, JOB) == made
    times = {d.key.metric.name: d.committed for d in found["distributions"] if d.key.metric.namespace == MILLISECONDS}
    one_each = {"fetch": 3, "extract": 3, "extract-cpu": 3, "commit": 3, "plan": 1, "commit-generation": 1}
    assert {name: spread.count for name, spread in times.items()} == one_each | {"write-shard": len(held.shards())}
    assert times["extract"].sum >= times["extract-cpu"].sum / 4 > 0
    ledger_seconds = sum(entry.cpu_seconds for entry in entries)
    assert abs(times["extract-cpu"].sum - 1000 * ledger_seconds) <= 3


def test_a_status_names_failures_and_the_command_that_retries_them(run, tmp_path):
    data = tmp_path / "my data"
    command = ["--videos", "v", "--out", str(data), "--retry-failed", "--yt-dlp", "--proxy http://me:secret@there"]
    status.note_start(str(data), 10, command)
    ledger = Ledger(str(data), "worker")
    for number in range(5):
        ledger.append(Entry(f"video{number}", "network", "failed-retryable", at=2e9 + number))
    for number in range(5, 8):
        ledger.append(Entry(f"video{number}", "extracted", "done", at=2e9 + number))
    found = status.report(str(data), now=2e9 + 60)
    assert (found.finished, found.listed) == (8, 10)
    assert found.hours_left * found.per_hour == pytest.approx(2)
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
    assert "secret" not in (data / status.NOTE).read_text()
    shown = run("pipelines.status", data)
    assert found.retry in shown.out
    assert json.loads(run("pipelines.status", data, "--json").out)["retry"] == found.retry
    assert status.retry_command(["--yt_dlp=--username me", "--limit", "2"]).split()[3:] == [
        "--yt-dlp=...",
        "--limit",
        "2",
        "--retry-failed",
    ]


def test_a_job_that_failed_nowhere_says_nothing_of_retries(tmp_path):
    status.note_start(str(tmp_path), 1, ["--videos", "v"])
    Ledger(str(tmp_path), "worker").append(Entry("video", "extracted", "done", at=2e9))
    assert status.report(str(tmp_path), now=2e9).retry is None
