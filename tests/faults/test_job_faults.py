"""Whatever stops the job, the same command finishes it with the same bytes, and nothing is left behind."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from pipelines.demo.__main__ import write_speech
from pipelines.demo.corpus import Spec, make_corpus
from shards.ledger import Ledger
from shards.tokenizer import train_tokenizer

pytestmark = pytest.mark.faults

ENDINGS = (".tfrecord", ".index", ".stats.json", ".videos", "manifest.json", "remainder.json", "config.json")
KILLS = 20


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The job over a small corpus, as a function of its output folder."""
    folder = tmp_path_factory.mktemp("job")
    make_corpus(str(folder / "corpus"), Spec(videos=8, shortest=8, longest=8), processes=2)
    write_speech(str(folder / "corpus" / "train"), str(folder / "speech.txt"))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(train_tokenizer((folder / "speech.txt").read_text().splitlines(), 400).to_str())

    def of(out, *more):
        return [
            sys.executable,
            "-m",
            "pipelines.preprocess",
            "--videos",
            str(folder / "corpus" / "train"),
            "--out",
            str(out),
            "--tokenizer",
            str(tokenizer),
            "--timing-model",
            "none",
            "--segments-per-example",
            "4",
            "--shard-bytes",
            "200000",
            "--min-words-per-30s",
            "20",
            "--direct_num_workers=2",
            *more,
        ]

    return of


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name.endswith(ENDINGS)}


def finish(command, out):
    ended = subprocess.run(command(out), capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    started = time.monotonic()
    finish(command, out)
    return content(out), time.monotonic() - started


def start(command, out):
    return subprocess.Popen(
        command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def family(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(condition, seconds=100):
    """Until something is the case; fails if it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def pause(process):
    """Stop a process until it gets SIGCONT."""
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


def wait_until_gone(processes, seconds=40):
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not alive, [p.cmdline() for p in alive]


def leftovers(out):
    return [p for p in out.rglob("*") if p.name.startswith(".incomplete")]


@pytest.mark.timeout(1200)
def test_killed_at_any_moment_it_finishes_with_the_same_bytes(command, undisturbed, tmp_path, faults):
    expected, usual = undisturbed
    rng = random.Random(0)
    out, kills, finished = tmp_path / "out", 0, 0
    while kills < KILLS:
        process = start(command, out)
        # A job that continues is shorter than one that starts; most of these moments find it at work.
        moment = rng.uniform(1.5, 0.7 * usual)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            children = family(process)
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait_until_gone(children)
            kills += 1
            continue
        assert process.returncode == 0, process.stderr.read()
        assert content(out) == expected
        assert not leftovers(out)
        finished += 1
        out = tmp_path / f"out{finished}"
    finish(command, out)
    assert content(out) == expected
    assert not leftovers(out)
    faults.record(f"job killed -9 at {kills} random moments", "finishes", f"{finished + 1} data sets, all byte-equal")


def test_a_killed_worker_ends_the_command_within_a_minute(command, undisturbed, tmp_path, faults):
    out = tmp_path / "out"
    process = start(command, out)
    wait_for(lambda: list(out.glob("ledger/*.jsonl")))
    everyone = family(process)
    [*_, worker] = [p for p in everyone if p.cmdline()[-1:] == ["pipelines.worker"]]
    worker.kill()
    killed = time.monotonic()
    status = process.wait(80)
    assert status == 1
    assert time.monotonic() - killed < 60
    said = process.stderr.read()
    assert "a worker process died" in said or "the job failed" in said
    assert "Traceback" not in said
    wait_until_gone(everyone)
    faults.record("a worker killed -9", "exit 1, resumed byte-equal", said.strip().splitlines()[-1])
    finish(command, out)
    assert content(out) == undisturbed[0]


def test_two_jobs_on_one_output(command, tmp_path, faults):
    out = tmp_path / "out"
    first = start(command, out)
    # Stopped at work, so that it cannot be done before the other comes.
    wait_for(lambda: list(out.glob("ledger/*.jsonl")))
    pause(first)
    second = subprocess.run(command(out), capture_output=True, text=True, timeout=60, check=False)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert "another job is writing" in second.stderr
    assert first.wait(120) == 0
    faults.record("two jobs on one output", "the second: exit 1", second.stderr.strip())


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


def test_a_full_disk_is_named_and_what_is_there_stays_usable(command, undisturbed, small_disk, tmp_path, faults):
    (small_disk / "ballast").write_bytes(b"x" * 1_300_000)
    out = small_disk / "out"
    ended = subprocess.run(command(out), capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 1
    assert "no space left" in ended.stderr.lower(), ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (out / "manifest.json").exists()
    shutil.copytree(out, tmp_path / "moved")
    finish(command, tmp_path / "moved")
    assert content(tmp_path / "moved") == undisturbed[0]
    faults.record("disk full", "exit 1, resumed byte-equal", ended.stderr.strip().splitlines()[-1])


def test_an_output_that_cannot_be_written_is_named(command, tmp_path, faults):
    ended = subprocess.run(command("/proc/reservoir"), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: cannot access '/proc/reservoir'")
    faults.record("output that cannot be written", "exit 1", ended.stderr.strip())


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "index"])
def test_damage_is_named_and_repaired_from_kept_segments(command, undisturbed, tmp_path, damage, faults):
    out = tmp_path / "out"
    kept = subprocess.run(command(out, "--keep-segments"), capture_output=True, text=True, timeout=200, check=False)
    assert kept.returncode == 0, kept.stderr
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

    def verify(*more):
        return subprocess.run(
            [sys.executable, "-m", "shards", "verify", str(out), *more],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"COLUMNS": "300"},
        )

    found = verify()
    assert found.returncode == 1
    assert shard.stem in found.stdout
    repaired = verify("--repair")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert content(out) == undisturbed[0]
    assert len(Ledger(str(out)).entries()) == 6
    faults.record(
        f"shard damaged afterwards: {damage}", "verify exit 1, repaired byte-equal", found.stdout.split("\n")[0]
    )
