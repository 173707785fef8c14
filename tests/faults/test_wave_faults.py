"""Several jobs on one data set, wave by wave: whoever works, stops or is killed, the shards are the same."""

import json
import signal
import subprocess
import time

import pytest
from test_job_faults import command, content, family, finish, pause, start, wait_for, wait_until_gone

from pipelines.folder import lock_path
from shards import filesystem, manifest, tally, waves
from shards.dataset import open_data
from shards.inspection.verify import verify
from shards.ledger import Ledger

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
__all__ = ["command"]


@pytest.fixture(scope="module")
def in_waves(command):
    """The job over six videos in three waves."""

    def of(out, *more):
        return [*command(out, "--wave=2", "--direct_running_mode=in_memory", *more), "--direct_num_workers=1"]

    return of


@pytest.fixture(scope="module")
def alone(in_waves, tmp_path_factory):
    """What one job makes of the waves without any disturbance."""
    out = tmp_path_factory.mktemp("alone") / "out"
    finish(in_waves, out)
    return out


def extracted(out):
    """How often each video was extracted."""
    lines = [json.loads(line) for path in Ledger(str(out)).files() for line in filesystem.read_bytes(path).splitlines()]
    return sorted(line["id"] for line in lines if line["outcome"] == "extracted")


def check_whole(out, alone):
    assert content(out) == content(alone)
    assert waves.unfinished(str(out)) == []
    assert tally.of_data(str(out)).ids.size == 6
    reports = verify(open_data(str(out)), 1)
    assert not [finding for report in reports for finding in report.findings]
    assert not list(out.rglob(".incomplete*"))


def test_waves_are_generations_and_nothing_is_lost(alone):
    held = manifest.load(str(alone))
    assert [(g.number, g.videos) for g in held.generations] == [(0, 2), (1, 2), (2, 2), (3, 0)]
    packed = {video for g in held.generations for video in json.loads(f"[{','.join(lines(alone, g))}]")}
    assert packed == set(extracted(alone))
    left = json.loads((alone / "remainder.json").read_text())["3"]
    segments = sum(e.segments for e in Ledger(str(alone)).entries().values())
    assert sum(g.segments for g in held.generations) + sum(stop - first for _, first, stop in left) == segments
    assert sum(stop - first for _, first, stop in left) < 4
    assert {p.stem for p in (alone / "segments").rglob("*.segments")} == {video for video, _, _ in left}


def lines(out, generation):
    return (out / f"train-g{generation.number:04d}.videos").read_text().split()


def test_two_jobs_share_the_waves(in_waves, alone, tmp_path, faults):
    out = tmp_path / "out"
    first = start(in_waves, out)
    pause_within_a_wave(first, out)
    second = start(in_waves, out)
    wait_for(lambda: list(out.glob("*.videos")))
    first.send_signal(signal.SIGCONT)
    jobs = [first, second]
    said = [job.communicate(timeout=280)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    check_whole(out, alone)
    assert extracted(out) == sorted(set(extracted(out))), "no video was worked on twice"
    shares = [sum(", generation" in line for line in text.splitlines()) for text in said]
    assert sum(shares) == 4
    assert min(shares) >= 1, said
    faults.record("two jobs on the waves of one data set", "both finish", f"waves {shares}, byte-equal to one job")


def pause_within_a_wave(job, out):
    """Stop a job that has begun its first wave at a moment at which it does not hold the data folder."""
    wait_for(lambda: list(out.glob("ledger/g0000/*.jsonl")))
    while True:
        pause(job)
        try:
            with filesystem.exclusive(lock_path(str(out))):
                return
        except filesystem.BusyError:
            job.send_signal(signal.SIGCONT)
            time.sleep(0.05)


def test_a_killed_jobs_wave_is_taken_over(in_waves, alone, tmp_path, faults):
    out = tmp_path / "out"
    first = start(in_waves, out)
    wait_for(lambda: list(out.glob("ledger/g0000/*.jsonl")))
    children = family(first)
    second = start(in_waves, out)
    time.sleep(4)
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_until_gone(children)
    said = second.communicate(timeout=280)[1]
    assert second.returncode == 0, said
    check_whole(out, alone)
    faults.record("one of two jobs killed -9 within its wave", "the other takes it over", "byte-equal to one job")


def test_a_job_is_killed_at_every_wave_and_loses_at_most_that(in_waves, alone, tmp_path, faults):
    out = tmp_path / "out"
    for committed in range(3):
        job = start(in_waves, out)
        wait_for(lambda done=committed: len(list(out.glob("*.videos"))) > done)
        children = family(job)
        job.send_signal(signal.SIGKILL)
        job.wait()
        wait_until_gone(children)
    finish(in_waves, out)
    check_whole(out, alone)
    (out / ".incomplete-of-a-job-killed-when-all-was-done").write_text("half a card")
    finish(in_waves, out)
    check_whole(out, alone)
    assert extracted(out) == sorted(set(extracted(out)))
    faults.record("a job in waves killed -9 at each commit", "finishes", "byte-equal, no video extracted twice")


def test_other_jobs_are_told(in_waves, command, tmp_path):
    out = tmp_path / "out"
    job = start(in_waves, out)
    wait_for((out / "waves" / "plan.json").exists)
    job.send_signal(signal.SIGKILL)
    job.wait()
    blocked = tmp_path / "blocked"
    blocked.write_text("gOldVidA_01")
    for arguments, sentence in (
        (command(out), "is being made in waves, 4 are not finished"),
        (command(out, "--wave=3"), "is being made with --wave 2"),
        (command(out, "--wave=2", "--limit=5"), "another list of videos"),
        (command(out, "--wave=2", "--shard-bytes=300000"), "is being made with --shard-bytes 200000, not 300000"),
        (command(out, "--wave=2", f"--blocklist={blocked}"), "is being made with another --blocklist"),
        (command(out, "--wave=2", "--segments-per-example=8"), "was made with segments_per_example 4, not 8"),
        (command(out, "--wave=2", "--seed=8"), "was made with video.seed 0, not 8"),
        (command(out, "--wave=2", "--group-probability=0.5"), "was made with groups.probability 1.0, not 0.5"),
    ):
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 2, ended.stderr
        assert sentence in ended.stderr
