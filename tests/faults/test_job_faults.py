"""Whatever stops the job, the same command finishes it with the same bytes, and nothing is left behind."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from data_folders import content, unfinished_files

from pipelines.runner.local_workers import PROCESS_NAME
from shards.dataset.ledger import Ledger

pytestmark = pytest.mark.faults

DIE_AT_NEW_STEP = Path(__file__).with_name("die_at_new_step.py")
MOST_STEPS = 150
RANDOM_KILLS = 3


def assert_whole(out, undisturbed):
    assert content(out) == content(undisturbed)
    assert not unfinished_files(out)


@pytest.mark.timeout(400)
def test_a_job_killed_at_each_commit_step_has_equal_bytes(start, undisturbed, tmp_path, faults):
    out, steps = tmp_path / "out", tmp_path / "steps"
    environment = {"FOLDER": str(out), "STEPS": str(steps)}
    kills = 0
    while (ran := start(out, env=environment, before=DIE_AT_NEW_STEP).wait()).status:
        assert ran.status == -signal.SIGKILL, ran.err
        kills += 1
        assert kills < MOST_STEPS, steps.read_text()
    died_at = steps.read_text().splitlines()
    assert len(died_at) == kills
    for kind in (".video", ".jsonl", ".tfrecord", ".index", ".stats.json", "manifest.json", "report.json"):
        assert any(step.endswith(kind) for step in died_at), kind
    assert_whole(out, undisturbed)
    faults.record(f"job killed -9 at each of {kills} commit steps", "finishes", "byte-equal")


@pytest.mark.timeout(400)
def test_killed_at_any_moment_it_finishes_with_the_same_bytes(start, undisturbed, tmp_path, faults):
    rng = random.Random(0)
    out, kills, finished = tmp_path / "out", 0, 0
    while kills < RANDOM_KILLS:
        job = start(out, workers=2)
        end = time.monotonic() + rng.uniform(0.5, 3)
        while job.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        if job.poll() is None:
            job.kill()
            kills += 1
            continue
        assert job.wait().status == 0
        assert_whole(out, undisturbed)
        finished += 1
        out = tmp_path / f"out{finished}"
    assert start(out, workers=2).wait().status == 0
    assert_whole(out, undisturbed)
    faults.record(f"job killed -9 at {kills} random moments", "finishes", f"{finished + 1} data sets, all byte-equal")


def test_a_killed_worker_ends_the_command_within_a_minute(start, finish, undisturbed, tmp_path, faults):
    out = tmp_path / "out"
    job = start(out, workers=2)
    job.wait_until(lambda: list(out.glob("videos/*/*.video")))
    everyone = job.family()
    [*_, worker] = [process for process in everyone if process.name() == PROCESS_NAME]
    worker.kill()
    killed = time.monotonic()
    ran = job.wait(80)
    assert ran.status == 1
    assert time.monotonic() - killed < 60
    assert "a worker process died" in ran.err or "the job failed" in ran.err
    assert "Traceback" not in ran.err
    _, alive = psutil.wait_procs(everyone, timeout=40)
    assert not alive, [process.cmdline() for process in alive]
    faults.record("a worker killed -9", "exit 1, resumed byte-equal", ran.err.strip().splitlines()[-1])
    finish(out)
    assert_whole(out, undisturbed)


def test_two_jobs_on_one_output(start, tmp_path, faults):
    out = tmp_path / "out"
    first = start(out)
    # Stopped at work, so that it cannot be done before the other comes.
    first.wait_until(lambda: list(out.glob("videos/*/*.video")))
    first.pause()
    second = start(out).wait()
    first.send_signal(signal.SIGCONT)
    assert second.status == 1
    assert "another job is writing" in second.err
    assert first.wait().status == 0
    faults.record("two jobs on one output", "the second: exit 1", second.err.strip())


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, where the machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_is_named_and_what_is_there_stays_usable(start, finish, undisturbed, small_disk, tmp_path, faults):
    (small_disk / "ballast").write_bytes(b"x" * 1_300_000)
    out = small_disk / "out"
    ended = start(out, workers=2).wait()
    assert ended.status == 1
    assert "no space left on its disk; the file has more than" in ended.err, ended.err
    assert "Traceback" not in ended.err
    assert not (out / "manifest.json").exists()
    shutil.copytree(out, tmp_path / "moved")
    finish(tmp_path / "moved")
    assert_whole(tmp_path / "moved", undisturbed)
    faults.record("disk full", "exit 1, resumed byte-equal", ended.err.strip().splitlines()[-1])


def test_a_small_disk_is_enough_for_a_small_job(start, undisturbed, small_disk):
    ended = start(small_disk / "out", workers=2).wait()
    assert ended.status == 0, ended.err
    assert_whole(small_disk / "out", undisturbed)


def test_an_output_that_cannot_be_written_is_named(start, faults):
    ended = start("/proc/reservoir").wait()
    assert ended.status == 1
    assert ended.err.startswith("error: cannot access '/proc/reservoir'")
    faults.record("output that cannot be written", "exit 1", ended.err.strip())


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "index"])
def test_damage_is_named_and_repaired_from_kept_segments(run, undisturbed, tmp_path, damage, faults):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    shard = sorted(out.glob("*.tfrecord"))[0]
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        shard.write_bytes(bytes(data))
    elif damage == "cut":
        shard.write_bytes(bytes(data[: len(data) // 2]))
    elif damage == "remove":
        shard.unlink()
    else:
        shard.with_suffix(".index").unlink()
    found = run("shards", "verify", out, env={"COLUMNS": "300"})
    assert found.status == 1
    assert shard.stem in found.out
    repaired = run("shards", "verify", out, "--repair")
    assert repaired.status == 0, repaired.out + repaired.err
    assert content(out) == content(undisturbed)
    assert len(Ledger(str(out)).entries()) == 6
    faults.record(f"shard damaged afterwards: {damage}", "verify exit 1, repaired byte-equal", found.out.split("\n")[0])
