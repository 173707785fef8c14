"""The whole job in a bucket: raw videos, shards, ledger and manifest there, and the same bytes as on a disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.demo.__main__ import write_speech
from pipelines.demo.corpus import Spec, make_corpus
from shards import filesystem
from shards.ledger import Ledger
from shards.reader import PretrainingReader, ReaderConfig
from shards.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[2]
SHARDS = (".tfrecord", ".index", ".stats.json", ".videos", "manifest.json", "remainder.json", "config.json")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(str(folder), Spec(videos=6, shortest=8, longest=8), processes=2)
    write_speech(str(folder / "train"), str(folder / "speech.txt"))
    words = (folder / "speech.txt").read_text().splitlines()
    (folder / "tokenizer.json").write_text(train_tokenizer(words, 400).to_str())
    return folder


def command(videos, out, tokenizer, *more):
    settings = ["--timing-model", "none", "--segments-per-example", "4", "--shard-bytes", "200000"]
    settings += ["--min-words-per-30s", "20", "--direct_num_workers=2", *more]
    return [
        *(sys.executable, "-m", "pipelines.preprocess", "--videos", str(videos), "--out", str(out)),
        *("--tokenizer", str(tokenizer), *settings),
    ]


def finish(arguments):
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=280, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def local(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    finish(command(corpus / "train", out, corpus / "tokenizer.json"))
    return out


def content(folder):
    paths = filesystem.list_files(str(folder))
    return {p.rpartition("/")[2]: filesystem.read_bytes(p) for p in paths if p.endswith(SHARDS)}


def upload(folder, target):
    for path in sorted(Path(folder).iterdir()):
        filesystem.write_bytes(f"{target}/{path.name}", path.read_bytes())


def test_a_job_in_a_bucket_makes_the_same_bytes(bucket, corpus, local, tmp_path):
    upload(corpus / "train", f"{bucket}/videos")
    filesystem.write_bytes(f"{bucket}/tokenizer.json", (corpus / "tokenizer.json").read_bytes())
    out = f"{bucket}/data"
    finish(command(f"{bucket}/videos", out, f"{bucket}/tokenizer.json"))
    assert content(out) == content(local)
    assert Ledger(out).entries().keys() == Ledger(str(local)).entries().keys()
    assert filesystem.list_files(f"{out}/segments") == []
    for tool in ("stats", "verify", "show"):
        told = subprocess.run(
            [sys.executable, "-m", "shards", tool, out],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            check=False,
        )
        assert told.returncode == 0, told.stderr
    config = ReaderConfig(segments=4, groups=1, random_text_sequences=0)
    readers = [PretrainingReader(data, config, 2, seed=0) for data in (out, str(local))]
    for _ in range(3):
        ours, theirs = map(next, readers)
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
    for reader in readers:
        reader.close()


def test_a_killed_job_in_a_bucket_continues(bucket, corpus, local):
    out = f"{bucket}/data"
    arguments = command(corpus / "train", out, corpus / "tokenizer.json")
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not filesystem.list_files(f"{out}/ledger"):
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # The lease of the killed job is still good; the next one waits until it ends.
    finish(arguments)
    assert content(out) == content(local)


def test_a_job_survives_a_storm(bucket, storm, corpus, local):
    out = f"{bucket}/data"
    finish(command(corpus / "train", out, corpus / "tokenizer.json"))
    assert content(out) == content(local)
    assert storm.failed > 10
