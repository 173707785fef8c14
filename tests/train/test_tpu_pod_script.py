"""The script for TPU pods, line by line, against a `gcloud` that keeps a pod in a file and loses it once."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "pipelines" / "deploy" / "tpu_pod.sh"

GCLOUD = """#!/usr/bin/env bash
echo "$*" >> calls
case "$*" in
  *describe*) cat state 2>/dev/null ;;
  *create*) echo ACTIVE > state ;;
  *delete*) rm state ;;
  *ls*) [ "$(grep -c 'docker run' calls)" -ge 3 ] ;;
  *ssh*)
    runs=$(grep -c 'docker run' calls)
    if [ "$runs" = 1 ]; then echo SUSPENDED > state; exit 255; fi ;;
esac
"""


def run(tmp_path, **more):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(GCLOUD)
    gcloud.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PROJECT": "p",
        "ZONE": "z",
        "POD": "pod",
        "TYPE": "v5p-128",
        "RUNTIME": "v2",
        "IMAGE": "place/p/r/train:1",
        "WORKDIR": "/runs/base",
        "PAUSE": "0.01",
        **more,
    }
    command = ["bash", str(SCRIPT), "base", "--data", "gs://b/a folder"]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_lost_pod_is_requested_until_the_run_has_finished(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text()
    # Lost in the first start, told to stop in the second, finished in the third.
    assert calls.count("docker run") == 3
    assert calls.count("queued-resources create pod") == 2
    assert calls.count("queued-resources delete pod") == 2
    assert "--accelerator-type v5p-128 --runtime-version v2 --spot" in calls
    assert r"base --data gs://b/a\ folder --workdir /runs/base --coordinator auto" in calls
    assert "start 2 ended; resuming from the newest checkpoint" in done.stderr
    assert not (tmp_path / "state").exists()
    assert "sudo mkdir -p /runs/base" in calls
    assert "-v /runs/base:/runs/base" in calls


def test_a_work_folder_in_a_bucket_needs_no_share(tmp_path):
    done = run(tmp_path, WORKDIR="gs://b/run")
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "--workdir gs://b/run" in calls
    assert "gcloud storage ls gs://b/run/export/ckpt_*" in calls
    assert "mkdir" not in calls
    assert "-v " not in calls


def test_it_gives_up_and_names_what_is_missing(tmp_path):
    assert run(tmp_path, TRIES="1").returncode == 1
    unnamed = run(tmp_path, IMAGE="")
    assert unnamed.returncode != 0
    assert "IMAGE: the container" in unnamed.stderr
