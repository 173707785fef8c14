"""What the other processes of a run do when one dies, fails or is only slow."""

import re
import shutil
import signal
import time

import pytest

from train.metrics.formatting import MetricsLog

CONTINUE = "start all processes again: the same command continues from the newest checkpoint\n"


def checkpoint_4(start_processes, workdir, *more, **options):
    """Two processes that have saved a checkpoint and go on training."""
    processes = start_processes(workdir, 2, *more, steps=100_000, **options)
    for process in processes:
        process.wait_until((workdir / "checkpoints" / "4").exists, 200)
    return processes


def last_lines(ran):
    """What a process said after the lines that tell of its progress."""
    return [line for line in ran.err.splitlines(keepends=True) if not re.match(r"step |compiling |continuing ", line)]


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_process_ends_the_other_with_a_sentence(start_processes, tmp_path, victim, faults):
    workdir = tmp_path / "run"
    processes, other = checkpoint_4(start_processes, workdir), 1 - victim
    killed = time.monotonic()
    processes[victim].kill()
    ended = processes[other].wait(120)
    seconds = time.monotonic() - killed
    faults.record(f"process {victim} of 2 killed", "the other ended with status 1", f"after {seconds:.1f} s")
    assert ended.status == 1
    assert last_lines(ended) == [
        f"error: process {victim} of 2 died (it was killed, or its machine or network is gone), so process {other} of 2"
        f" ends too; {CONTINUE}"
    ]
    newest = max(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdecimal())
    first, second = [process.wait() for process in start_processes(workdir, 2, steps=newest + 4)]
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert re.search(r"continuing from step \d+", first.err)
    lines = MetricsLog(str(workdir / "metrics.jsonl")).lines()
    assert [line["step"] for line in lines] == list(range(1, newest + 5))


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_killed_work_is_named_by_both_parents(start_processes, tmp_path):
    processes = checkpoint_4(start_processes, tmp_path / "run")
    # As the kernel does when memory runs out: it chooses the process that works, not its small parent.
    processes[1].process.children()[0].kill()
    first, second = [process.wait(120) for process in processes]
    assert (first.status, second.status) == (1, 1)
    assert last_lines(first) == [f"error: process 1 of 2 was ended by SIGKILL, so process 0 of 2 ends too; {CONTINUE}"]
    assert last_lines(second) == [f"error: the work of process 1 of 2 was ended by SIGKILL; {CONTINUE}"]


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_process_that_fails_tells_the_other_why(start_processes, small_data, tmp_path):
    data = shutil.copytree(small_data, tmp_path / "data")
    shard = next(data.glob("*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    ran = [process.wait() for process in start_processes(tmp_path / "run", 2, "--data", data)]
    assert [each.status for each in ran] == [1, 1], ran
    # A record belongs to one process.
    failed = next(host for host in range(2) if "damaged" in ran[host].err and "failed" not in ran[host].err)
    (reason,) = last_lines(ran[failed])
    assert last_lines(ran[1 - failed]) == [
        f"error: process {failed} of 2 failed: {reason.removeprefix('error: ').rstrip()},"
        f" so process {1 - failed} of 2 ends too; {CONTINUE}"
    ]


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_different_options_are_a_usage_error_of_every_process(start_processes, tmp_path):
    ran = [process.wait() for process in start_processes(tmp_path, 2, each=lambda host: ("--seed", str(host)))]
    sentence = "error: process 1 was started with other options than process 0; give all the same\n"
    assert [(each.status, each.err) for each in ran] == [(2, sentence), (2, sentence)]


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_process_that_stands_still_is_waited_for(start_processes, tmp_path):
    workdir = tmp_path / "run"
    processes = checkpoint_4(start_processes, workdir)
    stopped = processes[1].process.children()[0]
    stopped.suspend()
    time.sleep(15)
    assert processes[0].poll() is None
    stopped.resume()
    before = max(line["step"] for line in MetricsLog(str(workdir / "metrics.jsonl")).lines())
    processes[0].wait_until(lambda: MetricsLog(str(workdir / "metrics.jsonl")).lines()[-1]["step"] > before + 2)
    processes[1].send_signal(signal.SIGTERM)
    assert [process.wait(120).status for process in processes] == [0, 0]
