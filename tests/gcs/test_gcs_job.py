"""The whole job in a bucket: raw videos, shards, ledger and manifest there, and the same bytes as on a disk."""

import numpy as np
from data_folders import content
from emulator import upload

from shards.dataset.ledger import Ledger
from shards.dataset.video_store import VideoStore
from shards.reader import PretrainingReader, ReaderConfig
from shards.storage import filesystem


def test_a_job_in_a_bucket_makes_the_same_bytes(bucket, run, finish, corpus, undisturbed):
    upload(corpus / "train", f"{bucket}/videos")
    filesystem.write_bytes(f"{bucket}/tokenizer.json", (corpus / "tokenizer.json").read_bytes())
    out = f"{bucket}/data"
    finish(out, "--tokenizer", f"{bucket}/tokenizer.json", videos=f"{bucket}/videos", workers=2)
    assert content(out) == content(undisturbed)
    assert Ledger(out).entries().keys() == Ledger(str(undisturbed)).entries().keys()
    assert not list(VideoStore(out).paths())
    for tool in ("stats", "verify", "show"):
        ran = run("shards", tool, out)
        assert ran.status == 0, ran.err
    config = ReaderConfig(segments=4, groups=1, random_text_sequences=0)
    readers = [PretrainingReader(data, config, 2, seed=0) for data in (out, str(undisturbed))]
    for _ in range(3):
        ours, theirs = map(next, readers)
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
    for reader in readers:
        reader.close()


def test_a_killed_job_in_a_bucket_continues_at_once(bucket, start, finish, undisturbed):
    out = f"{bucket}/data"
    job = start(out)
    job.wait_until(lambda: list(VideoStore(out).paths()))
    job.kill()
    finish(out)
    assert content(out) == content(undisturbed)


def test_two_jobs_on_one_output_make_one_generation(bucket, start, undisturbed, faults):
    out = f"{bucket}/data"
    jobs = [start(out), start(out)]
    ended = [job.wait() for job in jobs]
    assert [ran.status for ran in ended] == [0, 0], [ran.err for ran in ended]
    assert content(out) == content(undisturbed)
    faults.record("two jobs on one output in a bucket", "both finish", "byte-equal, one generation")


def test_a_job_survives_a_storm(bucket, storm, finish, undisturbed):
    out = f"{bucket}/data"
    finish(out, workers=2)
    assert content(out) == content(undisturbed)
    assert storm.failed > 10
