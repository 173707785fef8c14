"""Several jobs on one data set, wave by wave: whoever works, stops or is killed, the shards are the same."""

import json
import signal
import time

import pytest
from data_folders import content, unfinished_files

from pipelines.folder import lock_path
from shards import filesystem, manifest, tally, waves
from shards.dataset import open_data
from shards.inspection.verify import verify
from shards.ledger import Ledger

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]
WAVE = "--wave=2"


@pytest.fixture(scope="module")
def alone(finish, tmp_path_factory):
    """What one job makes of three waves of two videos without any disturbance."""
    out = tmp_path_factory.mktemp("alone") / "out"
    finish(out, WAVE)
    return out


def extracted(out):
    """How often each video was extracted."""
    lines = [json.loads(line) for path in Ledger(str(out)).files() for line in filesystem.read_bytes(path).splitlines()]
    return sorted(line["id"] for line in lines if line["outcome"] == "extracted")


def assert_whole(out, alone):
    assert content(out) == content(alone)
    assert waves.unfinished(str(out)) == []
    assert tally.of_data(str(out)).ids.size == 6
    reports = verify(open_data(str(out)), 1)
    assert not [finding for report in reports for finding in report.findings]
    assert not unfinished_files(out)


def test_waves_are_generations_and_nothing_is_lost(alone):
    generations = manifest.load(str(alone)).generations
    assert [(g.number, g.videos) for g in generations] == [(0, 2), (1, 2), (2, 2), (3, 0)]
    lines = [line for g in generations for line in (alone / f"train-g{g.number:04d}.videos").read_text().split()]
    assert {json.loads(line) for line in lines} == set(extracted(alone))
    left = json.loads((alone / "remainder.json").read_text())["3"]
    segments = sum(e.segments for e in Ledger(str(alone)).entries().values())
    assert sum(g.segments for g in generations) + sum(stop - first for _, first, stop in left) == segments
    assert sum(stop - first for _, first, stop in left) < 4
    assert {p.stem for p in (alone / "segments").rglob("*.segments")} == {video for video, _, _ in left}


def test_two_jobs_share_the_waves(start, alone, tmp_path, faults):
    out = tmp_path / "out"
    first = start(out, WAVE)
    pause_within_a_wave(first, out)
    second = start(out, WAVE)
    second.wait_until(lambda: list(out.glob("*.videos")))
    first.send_signal(signal.SIGCONT)
    ran = [job.wait() for job in (first, second)]
    assert [each.status for each in ran] == [0, 0], ran
    assert_whole(out, alone)
    assert extracted(out) == sorted(set(extracted(out))), "no video was worked on twice"
    shares = [sum(", generation" in line for line in each.err.splitlines()) for each in ran]
    assert sum(shares) == 4
    assert min(shares) >= 1, ran
    faults.record("two jobs on the waves of one data set", "both finish", f"waves {shares}, byte-equal to one job")


def pause_within_a_wave(job, out):
    """Stop a job that works on its first wave at a moment at which it does not hold the data folder."""
    job.wait_until(lambda: list(out.glob("ledger/g0000/*.jsonl")))
    while True:
        job.pause()
        try:
            with filesystem.exclusive(lock_path(str(out))):
                return
        except filesystem.BusyError:
            job.send_signal(signal.SIGCONT)
            time.sleep(0.05)


def test_a_killed_jobs_wave_is_taken_over(start, alone, tmp_path, faults):
    out = tmp_path / "out"
    first = start(out, WAVE)
    pause_within_a_wave(first, out)
    second = start(out, WAVE)
    second.wait_until(lambda: list(out.glob("ledger/g0001/*.jsonl")))
    first.kill()
    ran = second.wait()
    assert ran.status == 0, ran.err
    assert_whole(out, alone)
    faults.record("one of two jobs killed -9 within its wave", "the other takes it over", "byte-equal to one job")


def test_a_job_is_killed_at_every_wave_and_loses_at_most_that(start, finish, alone, tmp_path, faults):
    out = tmp_path / "out"
    for committed in range(3):
        job = start(out, WAVE)
        job.wait_until(lambda done=committed: len(list(out.glob("*.videos"))) > done)
        job.kill()
    finish(out, WAVE)
    assert_whole(out, alone)
    (out / ".incomplete-of-a-job-killed-when-all-was-done").write_text("half a card")
    finish(out, WAVE)
    assert_whole(out, alone)
    assert extracted(out) == sorted(set(extracted(out)))
    faults.record("a job in waves killed -9 at each commit", "finishes", "byte-equal, no video extracted twice")


def test_other_jobs_are_told(start, tmp_path):
    out = tmp_path / "out"
    job = start(out, WAVE)
    job.wait_until((out / "waves" / "plan.json").exists)
    job.kill()
    blocked = tmp_path / "blocked"
    blocked.write_text("gOldVidA_01")
    for flags, sentence in (
        ((), "is being made in waves, 4 are not finished"),
        (("--wave=3",), "is being made with --wave 2"),
        ((WAVE, "--limit=5"), "another list of videos"),
        ((WAVE, "--shard-bytes=300000"), "is being made with --shard-bytes 200000, not 300000"),
        ((WAVE, f"--blocklist={blocked}"), "is being made with another --blocklist"),
        ((WAVE, "--segments-per-example=8"), "was made with segments_per_example 4, not 8"),
        ((WAVE, "--seed=8"), "was made with video.seed 0, not 8"),
        ((WAVE, "--group-probability=0.5"), "was made with groups.probability 1.0, not 0.5"),
    ):
        ran = start(out, *flags).wait()
        assert ran.status == 2, ran.err
        assert sentence in ran.err
